/** How one came in: what a token says of itself, and what the address bar and this tab keep of it. No DOM. */

import { callKey, remember, tokenKey } from '../base/storage.js';

const OURS = ['token', 'username', 'preview', 'room', 'invited'];

/** { room, name, publish } of a token, null if it is none; whether they are true, the server knows. */
export function grantOf(token) {
  try {
    const bytes = Uint8Array.from(atob(token.split('.')[1].replace(/-/g, '+').replace(/_/g, '/')), (letter) => letter.charCodeAt(0));
    const { room_id: room, user_name: name, permissions } = JSON.parse(new TextDecoder().decode(bytes));
    return { room: String(room), name: String(name), publish: permissions?.publish !== false };
  } catch {
    return null;
  }
}

/**
 * Keeps in the address what may be read and copied by anybody: neither a token, which lets its holder in as somebody, nor a
 * name, which would come in twice. Where the room is not `linked`, its name alone leads elsewhere, so it is no `room` there.
 * The tab keeps the rest, and with `name` that it is in the call: loading it again leads back.
 */
export function keep(/** @type {{ room: string, token?: string, name?: string, linked?: boolean }} */ { room, token = '', name = '', linked }) {
  forget();
  const here = new URL(location.href);
  for (const one of OURS) here.searchParams.delete(one);
  if (room) here.searchParams.set(linked ? 'room' : 'invited', room);
  history.replaceState(null, '', here);
  remember('sessionStorage', callKey(), name);
  remember('sessionStorage', tokenKey(), token);
}

/** Loading this address again is coming anew. */
export function forget() {
  remember('sessionStorage', callKey(), '');
  remember('sessionStorage', tokenKey(), '');
}
