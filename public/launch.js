/** Parses the link, and starts loading the view it leads to while main.js is still being fetched. */

import { grantOf } from './app/address.js';
import { callKey, recall, tokenKey } from './base/storage.js';

import('./i18n/texts.js'); // started early: it chooses the language and loads its texts

/** The request of the embedding <video-room> element, which posts it right after the frame's `load` event. */
const inFrame = async () => {
  const said = new Promise((resolve) => addEventListener('message', (event) => event.source === window.parent && event.data?.videoRoom && event.ports.length && resolve(event)));
  return (await import('./app/embedded.js')).accept(await said);
};

function inAddress() {
  const query = new URLSearchParams(location.search);
  const reloaded = ['reload', 'back_forward'].includes(performance.getEntriesByType('navigation')[0]?.type);
  const before = reloaded ? recall('sessionStorage', callKey()) : ''; // the name in the call that this page was in
  const said = (name) => query.get(name)?.trim() ?? '';
  const token = query.get('token') ?? recall('sessionStorage', tokenKey());
  const grant = grantOf(token);
  const invited = grant ? '' : said('invited');
  const shown = grant && said('preview') !== 'off' && !before; // a malformed token is sent anyway, so that the server reports why it is rejected
  const room = grant?.room ?? said('room');
  const name = grant?.name || said('username') || before;
  return { room, name, token, invited, straight: Boolean(token ? !shown : room && name) };
}

/** { room, name, token, invited }, each '' if absent, and `straight`: whether the link leads directly into a call. */
export const asked = window.parent === window ? inAddress() : await inFrame();

(asked.straight ? import('./call/call.js') : import('./prejoin/join.js')).catch(() => {}); // main.js imports it again and handles errors
