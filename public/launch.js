/** What the link asks for, and the view it leads to, which begins to load while main.js still comes. */

import { grantOf } from './app/address.js';
import { callKey, recall, tokenKey } from './base/storage.js';

import('./i18n/texts.js'); // it finds out which language to load

/** What the element asks for whose frame this is. It says so right after `load`, so this listens from the start. */
const inFrame = async () => {
  const said = new Promise((resolve) => addEventListener('message', (event) => event.source === window.parent && event.data?.videoRoom && event.ports.length && resolve(event)));
  return (await import('./app/embedded.js')).accept(await said);
};

function inAddress() {
  const query = new URLSearchParams(location.search);
  const reloaded = performance.getEntriesByType('navigation')[0]?.type === 'reload';
  const before = (key) => (reloaded ? recall('sessionStorage', key) : '');
  const said = (name) => query.get(name)?.trim() ?? '';
  const token = query.get('token') ?? before(tokenKey());
  const grant = grantOf(token);
  const invited = grant ? '' : said('invited');
  const shown = grant && said('preview') !== 'off' && !before(callKey()); // what is no token is tried, so that the server says why
  const room = grant?.room ?? said('room');
  const name = grant?.name || said('username') || before(callKey());
  return { room, name, token, invited, straight: Boolean(token ? !shown : room && name) };
}

/** { room, name, token, invited }, '' where nothing is said, and whether it leads `straight` into a call. */
export const asked = window.parent === window ? inAddress() : await inFrame();

(asked.straight ? import('./call/call.js') : import('./prejoin/join.js')).catch(() => {}); // main.js asks for it again
