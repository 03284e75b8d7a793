/** Where the page begins: either the view before the call or the call itself, by what the link asks for. */

import { asked, straight } from './asked.js';
import { page } from './page.js';
import { choices, choose, NAME_KEY, recall } from './storage.js';
import { isProblem } from './words.js';

const { devices } = page;

/** Room and name in a token; whether they are true, the server knows. */
function spoken(text) {
  try {
    const bytes = Uint8Array.from(atob(text.split('.')[1].replace(/-/g, '+').replace(/_/g, '/')), (letter) => letter.charCodeAt(0));
    const { room_id: room, user_name: name } = JSON.parse(new TextDecoder().decode(bytes));
    return { room: String(room), name: String(name) };
  } catch {
    return { room: '', name: '' };
  }
}

Object.assign(page.actions, {
  async preview({ room, name }) {
    const { showJoin } = await import('./join.js');
    showJoin({ room, name });
    page.show('join');
    devices.wake();
    page.tell('devices');
  },
  join: async (values) => (await import('./call.js')).enter(values),
  async toggle(source) {
    if (page.inCall && page.room.permissions?.publish === false) return;
    if (!isProblem(devices.status(source))) devices.toggle(source);
    else if (page.inCall) page.actions.retry([source]);
    else devices.start([source]);
    choose({ [`${source}Off`]: devices.status(source) === 'off' });
  },
});

function theme() {
  if (choices.theme === 'auto') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = choices.theme;
}

page.on('theme', theme);
theme();
for (const host of document.querySelectorAll('.host-name')) host.textContent = location.host;
if (location.protocol !== 'https:') for (const lock of document.querySelectorAll('.secure')) lock.remove();

page.token = asked.token;
if (straight) page.actions.join(asked.token ? spoken(asked.token) : asked);
else page.actions.preview({ room: asked.room, name: asked.name || recall('localStorage', NAME_KEY) });
