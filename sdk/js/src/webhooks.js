/** Verification of webhooks, as Standard Webhooks describes them. */

import { crypto } from './crypto.js';

const TOLERANCE_S = 300;

/** The message does not come from the server, or is too old. */
export class WebhookError extends Error {
  constructor(text) {
    super(text);
    this.name = 'WebhookError';
  }
}

/** The event in a message, if the server made it with one of the secrets, at most `toleranceS` ago. */
export async function verifyWebhook(secret, headers, body, { toleranceS = TOLERANCE_S, now = Date.now() / 1000 } = {}) {
  const found = new Map([...entries(headers)].map(([name, value]) => [name.toLowerCase(), String(value)]));
  const [id, at, signatures] = ['id', 'timestamp', 'signature'].map((name) => {
    const value = found.get(`webhook-${name}`);
    if (value === undefined) throw new WebhookError(`The header webhook-${name} is missing.`);
    return value;
  });
  if (!/^[0-9]{1,12}$/.test(at)) throw new WebhookError('The time is not a number.');
  if (!(Math.abs(now - Number(at)) <= toleranceS)) throw new WebhookError('The message is too old, or a clock is wrong.');
  const bytes = typeof body === 'string' ? new TextEncoder().encode(body) : new Uint8Array(body);
  const head = new TextEncoder().encode(`${id}.${at}.`);
  const signed = new Uint8Array(head.length + bytes.length);
  signed.set(head);
  signed.set(bytes, head.length);
  const codes = signatures.split(' ').filter((one) => one.startsWith('v1,')).map((one) => decoded(one.slice(3)));
  for (const one of Array.isArray(secret) ? secret : [secret]) {
    const key = await imported(one);
    for (const code of codes) {
      if (code !== null && (await crypto.subtle.verify('HMAC', key, code, signed))) {
        return JSON.parse(new TextDecoder().decode(bytes));
      }
    }
  }
  throw new WebhookError('The signature is wrong.');
}

function entries(headers) {
  return typeof headers.entries === 'function' ? headers.entries() : Object.entries(headers);
}

/** The bytes, or null if it is not base64. */
function decoded(text) {
  try {
    return Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
  } catch {
    return null;
  }
}

function imported(secret) {
  const key = decoded(secret.replace(/^whsec_/, ''));
  if (!key?.length) throw new TypeError('The secret of a webhook is `whsec_` and base64.');
  return crypto.subtle.importKey('raw', key, { name: 'HMAC', hash: 'SHA-256' }, false, ['verify']);
}
