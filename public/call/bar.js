/** The bar: buttons with short labels, and the room's name, call time and number of people. */

import { nameKey, showDevice } from '../app/device-keys.js';
import { $, element, icon, put } from '../base/dom.js';
import { page } from '../app/page.js';
import { elapsed, t, texts } from '../i18n/texts.js';
import { PANELS } from '../panels/list.js';

const LONG_PRESS_MS = 500;

const PANEL_KEYS = Object.entries(PANELS)
  .filter(([, { key }]) => key)
  .map(([id, { key, shortcut }]) => ({ id, shortcut: shortcut.toUpperCase(), has: { expanded: 'false', controls: 'panel' }, ...key }));

/** The buttons of each group: `id` is the stem of their ids. `wide` ones move to the More menu when the bar is too short. */
const KEYS = {
  'bar-media': [
    { id: 'mic', device: 'microphone' },
    { id: 'camera', device: 'camera' },
    { id: 'screen', wide: true, has: { pressed: 'false' } },
    { id: 'hand', wide: true, has: { pressed: 'false' } },
    { id: 'react', shortcut: 'R', has: { haspopup: 'menu' } },
  ],
  'bar-end': [
    { id: 'view', sign: 'grid', shortcut: 'G', wide: true },
    ...PANEL_KEYS,
    { id: 'more', has: { haspopup: 'menu' } },
    { id: 'leave' },
  ],
};

const { actions } = page;
let joinedAt = 0;

/** @param {{ id: string, device?: string, sign?: string, wide?: boolean, has?: object, count?: string }} key */
function makeKey({ id, device, sign = device ?? id, wide, has = {}, count }) {
  const key = element('button', `key${wide ? ' key--wide' : id === 'leave' ? ' key--leave' : ''}`);
  const cap = element('span', 'cap');
  Object.assign(key, { id: `${id}-button`, type: 'button' });
  for (const [name, value] of Object.entries(has)) key.setAttribute(`aria-${name}`, value);
  cap.append(icon(sign));
  key.append(cap, element('span', 'key__label'));
  if (count) key.append(' ', Object.assign(element('span', count), { id: `${id}-count`, hidden: true })); // read after the label
  if (!device) return key;
  key.dataset.toggle = device;
  const choose = element('button', 'choose');
  Object.assign(choose, { id: `${id}-choose`, type: 'button' });
  choose.setAttribute('aria-haspopup', 'menu');
  choose.append(icon('down'));
  const split = element('div', 'split');
  split.append(key, choose);
  return split;
}

function showDevices() {
  for (const source of ['microphone', 'camera']) showDevice(source);
  const sharing = page.devices.status('screen') === 'on';
  const button = $('screen-button');
  button.setAttribute('aria-pressed', String(sharing));
  button.classList.toggle('is-on', sharing);
  const why = (!page.devices.canShare && t('key.no_share')) || (page.listens && t('key.no_publish')) || '';
  button.hidden = !page.devices.canShare; // as on all phones
  nameKey(button, t(sharing ? 'key.unshare' : 'key.share'), 'S', why);
}

function showHand() {
  const up = Boolean(page.room?.hand);
  const button = $('hand-button');
  button.setAttribute('aria-pressed', String(up));
  button.classList.toggle('is-hand', up);
  nameKey(button, t(up ? 'key.lower' : 'key.raise'), 'H');
  put(button.querySelector('.key__label'), t('key.hand'));
}

function showRoom() {
  const room = page.room;
  if (!room) return;
  const here = room.self === null ? 0 : room.participants.size + 1;
  put($('badge-room'), room.room);
  $('badge-room').title = room.room;
  $('badge-lock').hidden = !room.settings?.locked;
  put($('badge-people'), here === 0 ? t('stage.joining') : here === 1 ? t('stage.alone') : t('stage.people', { count: here }));
  showClock();
  showHand();
}

function showClock() {
  const on = page.inCall && page.room.self !== null && joinedAt;
  put($('badge-time'), on ? elapsed((performance.now() - joinedAt) / 1000) : '');
  $('badge-dot').hidden = !on;
}

function write() {
  for (const { id, device, shortcut, has } of Object.values(KEYS).flat()) {
    if (device) nameKey($(`${id}-choose`), t(`key.choose.${device}`));
    else if (!has?.pressed) nameKey($(`${id}-button`), t(`key.${id}`), shortcut);
  }
  showDevices();
  showRoom();
}

/** Calls `then` on a click, or says why the button is disabled; calls `held` on a long press by touch or pen. */
function press(id, then, held) {
  const button = $(id);
  let timer = 0;
  let done = false;
  button.addEventListener('click', () => {
    if (done) done = false;
    else if (button.getAttribute('aria-disabled') !== 'true') then();
    else actions.explain(button.title);
  });
  if (!held) return;
  button.addEventListener('pointerdown', ({ pointerType }) => {
    done = false;
    if (pointerType === 'mouse') return;
    timer = setTimeout(() => {
      done = true;
      held();
    }, LONG_PRESS_MS);
  });
  for (const type of ['pointerup', 'pointercancel', 'pointerleave']) button.addEventListener(type, () => clearTimeout(timer));
  button.addEventListener('contextmenu', (event) => event.preventDefault());
}

export function startBar() {
  for (const [group, keys] of Object.entries(KEYS)) $(group).append(...keys.map(makeKey));
  press('mic-button', () => actions.toggle('microphone'), () => actions.deviceMenu('microphone', 'mic-button'));
  press('camera-button', () => actions.toggle('camera'), () => actions.deviceMenu('camera', 'camera-button'));
  press('mic-choose', () => actions.deviceMenu('microphone', 'mic-choose'));
  press('camera-choose', () => actions.deviceMenu('camera', 'camera-choose'));
  press('screen-button', () => actions.share());
  press('hand-button', () => actions.hand());
  press('react-button', () => actions.reactions());
  press('view-button', () => actions.view());
  for (const { id } of PANEL_KEYS) press(`${id}-button`, () => actions.panel(id));
  press('more-button', () => actions.moreMenu());
  press('leave-button', () => actions.leave());
  page.on('devices', showDevices);
  page.on('people', showRoom);
  page.on('welcome', showDevices); // permissions are known now
  page.on('welcome', () => (joinedAt ||= performance.now()));
  page.on('call', ({ again }) => again || (joinedAt = 0));
  setInterval(showClock, 1000);
  texts.addEventListener('change', write);
  write();
}
