/** What the link asks for, and the view it leads to, which begins to load while main.js still comes. */

import { callKey, recall, tokenKey } from './storage.js';

import('./texts.js'); // it finds out which language to load

/** What the element asks for whose frame this is. It says so right after `load`, so this listens from the start. */
const inFrame = async () => {
  const said = new Promise((resolve) => addEventListener('message', (event) => event.source === window.parent && event.data?.videoRoom && event.ports.length && resolve(event)));
  return (await import('./embedded.js')).accept(await said);
};

function inAddress() {
  const query = new URLSearchParams(location.search);
  const reloaded = performance.getEntriesByType('navigation')[0]?.type === 'reload';
  const before = (key) => (reloaded ? recall('sessionStorage', key) : '');
  const room = query.get('room')?.trim() ?? '';
  return { room, name: query.get('username')?.trim() || before(callKey()), token: query.get('token') ?? before(tokenKey()) };
}

/** { room, name, token }, '' where nothing is said. */
export const asked = window.parent === window ? inAddress() : await inFrame();

/** Whether it leads straight into a call. */
export const straight = Boolean(asked.token || (asked.room && asked.name));

(straight ? import('./call.js') : import('./join.js')).catch(() => {}); // main.js asks for it again
