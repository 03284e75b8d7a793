/** Parses the link, and starts loading the view it leads to while main.js is still being fetched. */

import { grantOf } from './app/address.js';
import { callKey, endKey, recall, remember, tokenKey } from './base/storage.js';

import('./i18n/texts.js'); // started early: it chooses the language and loads its texts

/** The request of the embedding <video-room> element, which posts it right after the frame's `load` event. */
const inFrame = async () => {
  const said = new Promise((resolve) => addEventListener('message', (event) => event.source === window.parent && event.data?.videoRoom && event.ports.length && resolve(event)));
  return (await import('./app/embedded.js')).accept(await said);
};

/** The ending that a reload shows again, or null. Any other way to this address forgets it; one with a token is never a storage key. */
function endingOf(query, reloaded) {
  const kept = query.has('token') ? '' : recall('sessionStorage', endKey());
  if (kept && !reloaded) remember('sessionStorage', endKey(), '');
  return kept && reloaded ? JSON.parse(kept) : null;
}

function inAddress() {
  const query = new URLSearchParams(location.search);
  const reloaded = ['reload', 'back_forward'].includes(performance.getEntriesByType('navigation')[0]?.type);
  const ended = endingOf(query, reloaded);
  const before = reloaded ? recall('sessionStorage', callKey()) : ''; // the name in the call that this page was in
  const said = (name) => query.get(name)?.trim() ?? '';
  const token = query.get('token') ?? recall('sessionStorage', tokenKey());
  const grant = grantOf(token);
  const shown = grant && said('preview') !== 'off' && !before; // a malformed token is sent anyway, so that the server reports why it is rejected
  const room = grant?.room ?? said('room');
  const name = grant?.name || said('username') || before;
  const uninvited = said('invited') && !token ? { code: 'uninvited', room: said('invited'), name: '' } : null;
  return { room, name, token, ended: ended ?? uninvited, straight: Boolean(token ? !shown : room && name) };
}

/**
 * { room, name, token }, each '' if absent; `ended`: the ending { code, room, name } to show instead of them, or null; `straight`:
 * whether the link leads directly into a call.
 */
export const asked = window.parent === window ? inAddress() : await inFrame();

(asked.ended ? import('./call/ended.js') : asked.straight ? import('./call/call.js') : import('./prejoin/join.js')).catch(() => {}); // main.js imports it again and handles errors
