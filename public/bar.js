/** The bar: keys that say in a word what they do, their menus, and what room this is. */

import { nameKey, showDevice } from './devicekeys.js';
import { $, element, icon, put } from './dom.js';
import { meter } from './meter.js';
import { openMenu } from './overlay.js';
import { page } from './page.js';
import { panels } from './panel.js';
import { inUse, optionsOf } from './pickers.js';
import { elapsed, t, texts } from './texts.js';

export const REACTIONS = ['thumbs_up', 'heart', 'clap', 'laugh', 'surprise', 'celebrate'];
const LONG_PRESS_MS = 500;
const IDLE_MS = 4_000; // in full screen, until the bar fades

let joinedAt = 0;
let metered = null;
let stopMeter = null;

function showMeter() {
  const track = page.inCall ? page.devices.track('microphone') : null;
  if (track === metered) return;
  stopMeter?.();
  [metered, stopMeter] = [track, null];
  if (!track) return;
  const cap = $('mic-button').querySelector('.cap');
  stopMeter = meter(track, (level) => {
    cap.style.setProperty('--level', page.devices.status('microphone') === 'on' ? level.toFixed(2) : '0');
    page.tell('level', { level });
  });
}

function showDevices() {
  for (const source of ['microphone', 'camera']) showDevice(source);
  const sharing = page.devices.status('screen') === 'on';
  const button = $('screen-button');
  button.setAttribute('aria-pressed', String(sharing));
  button.classList.toggle('is-on', sharing);
  const why = (!page.devices.canShare && t('key.no_share')) || (page.room?.permissions?.publish === false && t('key.no_publish')) || '';
  nameKey(button, t(sharing ? 'key.unshare' : 'key.share'), 'S', why);
  showMeter();
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
  for (const [id, key, shortcut] of [['react-button', 'key.react', 'R'], ['view-button', 'key.view', 'G'], ['people-button', 'key.people', 'P'], ['chat-button', 'key.chat', 'C'], ['more-button', 'key.more'], ['leave-button', 'key.leave']]) {
    nameKey($(id), t(key), shortcut);
  }
  showDevices();
  showRoom();
}

/** Six reactions; the digits 1 to 6 choose, too. */
export function openReactions() {
  const items = REACTIONS.map((reaction) => ({ icon: reaction, label: t(`react.${reaction}`), then: () => page.actions.react(reaction) }));
  const menu = openMenu($('react-button'), items, { label: t('key.react'), className: 'menu--reactions' });
  const digit = ({ key }) => menu.querySelectorAll('[role=menuitem]')[Number(key) - 1]?.click();
  menu.addEventListener('keydown', digit, true); // before the menu itself takes the key
}

function openDevices(source, anchor) {
  const sources = source === 'microphone' ? ['microphone', 'speaker'] : ['camera'];
  const items = sources.flatMap((one) => [
    element('p', 'menu__head', t(`device.${one}`)),
    ...optionsOf(page.devices, one).map(([id, label]) => ({ label, checked: id === inUse(page.devices, one), then: () => page.devices.pick(one, id) })),
  ]);
  const settings = { icon: 'settings', label: t('settings.title'), then: () => page.actions.settings() };
  openMenu(anchor, [...items, null, settings], { label: t(`key.choose.${source}`), className: 'menu--devices' });
}

/** On a phone the keys that do not fit the bar stand at the top of this menu. */
function openMore() {
  const grid = element('div', 'menu__grid');
  for (const id of ['screen-button', 'hand-button', 'people-button', 'view-button']) {
    const key = $(id);
    if (key.checkVisibility()) continue;
    const made = element('button', key.matches('.is-on, .is-hand') ? 'is-on' : '');
    made.type = 'button';
    made.setAttribute('role', 'menuitem');
    made.setAttribute('aria-disabled', key.getAttribute('aria-disabled') ?? 'false');
    made.append(icon(key.querySelector('use').getAttribute('href').slice(3)), element('span', '', key.querySelector('.key__label').textContent));
    made.addEventListener('click', () => {
      made.closest('dialog').close();
      key.click();
    });
    grid.append(made);
  }
  const { actions } = page;
  const items = [
    { icon: 'link', label: t('more.link'), then: actions.copyLink },
    ...page.more.flatMap((make) => make()),
    document.fullscreenEnabled && { icon: 'expand', label: t(document.fullscreenElement ? 'more.leave_full' : 'more.full'), key: 'F', then: actions.fullScreen },
    page.stage.canPip && { icon: 'pip', label: t('more.pip'), then: actions.pip },
    null,
    panels.has('stats') && { icon: 'pulse', label: t('stats.title'), key: 'I', then: () => panels.show('stats') },
    { icon: 'settings', label: t('settings.title'), key: ',', then: actions.settings },
    { icon: 'help', label: t('more.shortcuts'), key: '?', then: actions.shortcuts },
  ].filter((item) => item !== false);
  openMenu($('more-button'), grid.childElementCount ? [grid, ...items] : items, { label: t('key.more'), className: 'menu--more' });
}

/** Calls `then` for a key unless it is unavailable; a long press on a phone is another thing. */
function press(id, then, held) {
  const button = $(id);
  let timer = 0;
  let done = false;
  button.addEventListener('click', () => {
    if (done) done = false;
    else if (button.getAttribute('aria-disabled') !== 'true') then();
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

/** In full screen the bar fades while nobody touches anything; whatever they do brings it back. */
function fadeWhenIdle() {
  let timer = 0;
  const stir = () => {
    clearTimeout(timer);
    $('call-view').classList.remove('is-idle');
    const fade = () => document.fullscreenElement && !$('call-view').querySelector('.bar :focus-visible') && $('call-view').classList.add('is-idle');
    timer = setTimeout(fade, IDLE_MS);
  };
  for (const type of ['pointermove', 'pointerdown', 'keydown', 'focusin']) addEventListener(type, stir, { passive: true });
  document.addEventListener('fullscreenchange', stir);
}

export function startBar() {
  const { actions } = page;
  press('mic-button', () => actions.toggle('microphone'), () => openDevices('microphone', $('mic-button')));
  press('camera-button', () => actions.toggle('camera'), () => openDevices('camera', $('camera-button')));
  press('mic-choose', () => openDevices('microphone', $('mic-choose')));
  press('camera-choose', () => openDevices('camera', $('camera-choose')));
  press('screen-button', () => actions.share());
  press('hand-button', () => actions.hand());
  press('react-button', openReactions);
  press('view-button', () => actions.view());
  press('more-button', openMore);
  press('leave-button', () => actions.leave());
  page.on('devices', showDevices);
  page.on('people', showRoom);
  page.on('welcome', showDevices); // now it is known what one may send
  page.on('welcome', () => (joinedAt ||= performance.now()));
  page.on('call', ({ again }) => again || (joinedAt = 0));
  page.on('view', ({ name: view }) => view !== 'call' && showMeter());
  fadeWhenIdle();
  setInterval(showClock, 1000);
  texts.addEventListener('change', write);
  write();
}
