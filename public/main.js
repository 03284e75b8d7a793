/** Where the page begins: what the link says, the devices, and either the view before the call or the call itself. */

import { embedded, invitation } from './embedded.js';
import { showJoin, startJoin } from './join.js';
import { Devices } from './media.js';
import { page } from './page.js';
import { callKey, choices, choose, NAME_KEY, recall, tokenKey } from './storage.js';
import { isProblem } from './words.js';

const devices = (page.devices = new Devices());
for (const type of ['change', 'list', 'released']) devices.addEventListener(type, () => page.tell('devices'));

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

const call = () => import('./call.js');

Object.assign(page.actions, {
  preview({ room, name }) {
    showJoin({ room, name });
    page.show('join');
    devices.wake();
    page.tell('devices');
  },
  join: async (values) => (await call()).enter(values),
  async toggle(source) {
    if (page.inCall && page.room.permissions?.publish === false) return;
    if (!isProblem(devices.status(source))) devices.toggle(source);
    else if (page.inCall) page.actions.retry([source]);
    else devices.start([source]);
    choose({ [`${source}Off`]: devices.status(source) === 'off' });
  },
  settings: async () => (await import('./settings.js')).openSettings(),
});

function theme() {
  if (choices.theme === 'auto') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = choices.theme;
}

page.on('theme', theme);
theme();
startJoin();
for (const host of document.querySelectorAll('.host-name')) host.textContent = location.host;
if (location.protocol !== 'https:') for (const lock of document.querySelectorAll('.secure')) lock.remove();

const query = new URLSearchParams(location.search);
const reloaded = performance.getEntriesByType('navigation')[0]?.type === 'reload';
const before = (key) => (reloaded ? recall('sessionStorage', key) : '');
const asked = embedded
  ? await invitation
  : { room: query.get('room')?.trim() ?? '', name: query.get('username')?.trim() || before(callKey()), token: query.get('token') ?? before(tokenKey()) };
page.token = asked.token;
if (page.token) page.actions.join(spoken(page.token));
else if (asked.room && asked.name) page.actions.join(asked);
else page.actions.preview({ room: asked.room, name: asked.name || recall('localStorage', NAME_KEY) });
