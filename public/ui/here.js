/** What this device and this browser can do, for modules that load after the first ones. */

/** Whether the device has no mouse or touchpad, as phones: it has hardly a keyboard either. */
export const isTouched = () => matchMedia('(any-pointer: coarse)').matches && !matchMedia('(any-pointer: fine)').matches;

/** Whether a node is drawn at all. */
export const isDrawn = (node) => node.getClientRects().length > 0;

/** Copies a text. Resolves to whether that worked: browsers offer no clipboard to pages without https, and may refuse it. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}
