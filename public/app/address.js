/** Tokens and addresses: the claims of a token, and what the address bar and sessionStorage keep. No page elements. */

import { callKey, endKey, remember, tokenKey } from '../base/storage.js';

const OURS = ['token', 'username', 'preview', 'room', 'invited'];

/** The claims { room, name, publish } of a token, or null if it cannot be parsed. Only the server verifies the signature. */
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
 * Keeps only what anyone may read and copy in the address: no token, which admits its holder under a certain name, and no
 * name, which others would join under too. If the room cannot be joined by its name (`linked` is false), the name is stored as
 * `invited` instead of `room`. sessionStorage keeps the token and the name, so that a reload during a call rejoins it.
 */
export function keep(/** @type {{ room: string, token?: string, name?: string, linked?: boolean }} */ { room, token = '', name = '', linked }) {
  keepEnd({});
  const here = new URL(location.href);
  for (const one of OURS) here.searchParams.delete(one);
  if (room) here.searchParams.set(linked ? 'room' : 'invited', room);
  history.replaceState(history.state, '', here);
  remember('sessionStorage', callKey(), name);
  remember('sessionStorage', tokenKey(), token);
}

/**
 * What a reload of this address does after a call: it shows `ending` again, or joins again as `name`. The token is kept only if
 * it may still admit the user.
 */
export function keepEnd(/** @type {{ name?: string, token?: string, ending?: object }} */ { name = '', token = '', ending }) {
  remember('sessionStorage', callKey(), name);
  remember('sessionStorage', tokenKey(), token);
  remember('sessionStorage', endKey(), ending ? JSON.stringify(ending) : '');
}
