/** WebCrypto, which Node.js 18 does not have as a global. */
export const crypto = globalThis.crypto ?? (await import('node:crypto')).webcrypto;
