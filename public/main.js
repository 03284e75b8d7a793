/** The page's first module: opens the pre-join view or goes straight into the call, depending on the link. */

import { keep } from './app/address.js';
import { whyNot } from './app/device-keys.js';
import { asked } from './launch.js';
import { page } from './app/page.js';
import { choices, choose, endKey, NAME_KEY, recall, remember } from './base/storage.js';
import { missing } from './base/dom.js';
import { isProblem } from './i18n/words.js';

const { devices } = page;

Object.assign(page.actions, {
  async preview({ room, name }) {
    const join = await import('./prejoin/join.js').catch(missing);
    if (!join) return;
    devices.permitted = !page.listens;
    if (!room) keep({ room }); // the address no longer names the last one
    remember('sessionStorage', endKey(), '');
    page.show('join'); // first: what is hidden takes no focus
    join.showJoin({ room, name });
    page.tell('devices');
  },
  async join(values) {
    devices.permitted = !page.listens;
    (await import('./call/call.js').catch(missing))?.enter(values);
  },
  async end(ending) {
    (await import('./call/ended.js').catch(missing))?.showEnded(ending);
  },
  async toggle(source) {
    const why = whyNot(source);
    if (why) return page.actions.explain?.(why);
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

const { room, name, token, ended, straight } = asked;
page.token = token;
if (token && !straight && !ended) keep({ room, token });
if (ended) page.actions.end(ended);
else if (straight) page.actions.join({ room, name });
else page.actions.preview({ room, name: name || recall('localStorage', NAME_KEY) });
