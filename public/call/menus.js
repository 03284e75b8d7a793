/** The menus of the bar and the tiles, and the list of shortcuts. */

import { $, element, icon } from '../base/dom.js';
import { isDrawn, isTouched } from '../ui/here.js';
import { PANELS } from '../panels/list.js';
import { itemsFor } from '../panels/moderate.js';
import { openDialog, openMenu } from '../ui/overlay.js';
import { page } from '../app/page.js';
import { canFlip, flip } from '../devices/flip.js';
import { inUse, optionsOf } from '../devices/pickers.js';
import { KEYS } from './shortcuts.js';
import { choices } from '../base/storage.js';
import { t } from '../i18n/texts.js';

const LABELS = { full: 'more.full', settings: 'settings.title' };

/** The menu of devices for `source`; `key` is the id of the button pressed. */
export function deviceMenu(source, key) {
  const sources = source === 'microphone' ? ['microphone', 'speaker'] : ['camera'];
  const items = sources.flatMap((one) => [
    element('p', 'menu__head', t(`device.${one}`)),
    ...optionsOf(page.devices, one).map(([id, label]) => ({ label, checked: id === inUse(page.devices, one), then: () => page.devices.pick(one, id) })),
  ]);
  const settings = { icon: 'settings', label: t('settings.title'), then: () => page.actions.settings() };
  openMenu($(key), [...items, null, settings], { label: t(`key.choose.${source}`), className: 'menu--devices' });
}

/** The More menu. Buttons that do not fit a phone's bar are at its top. */
export function moreMenu() {
  const grid = element('div', 'menu__grid');
  for (const key of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll('.key--wide'))) {
    if (key.hidden || isDrawn(key)) continue;
    const made = element('button', key.matches('.is-on, .is-hand') ? 'is-on' : '');
    made.type = 'button';
    made.setAttribute('role', 'menuitem');
    made.setAttribute('aria-disabled', key.getAttribute('aria-disabled') ?? 'false');
    made.append(icon(key.querySelector('use').getAttribute('href').slice(3)), element('span', '', key.querySelector('.key__label').textContent));
    made.setAttribute('aria-label', key.getAttribute('aria-label'));
    const count = key.querySelector('.count:not([hidden])');
    if (count) made.append(' ', element('span', count.className, count.textContent));
    made.addEventListener('click', () => {
      made.closest('dialog').close();
      key.click();
    });
    grid.append(made);
  }
  const { actions } = page;
  const items = [
    ...(isTouched() && canFlip(page.devices) ? [flipItem()] : []),
    ...(page.link ? [{ icon: 'link', label: t('more.link'), then: actions.copyLink }] : []),
    page.link ? { icon: 'qr', label: t('more.qr'), then: actions.invite } : { icon: 'link', label: t('link.invite'), then: actions.invite },
    ...(document.fullscreenEnabled ? [{ icon: 'expand', label: t(document.fullscreenElement ? 'more.leave_full' : 'more.full'), key: 'F', then: actions.fullScreen }] : []),
    ...(document.pictureInPictureEnabled ? [{ icon: 'pip', label: t(document.pictureInPictureElement ? 'more.leave_pip' : 'more.pip'), then: () => pip() }] : []),
    null,
    ...Object.entries(PANELS)
      .filter(([, { key }]) => !key)
      .map(([id, { sign, title, shortcut }]) => ({ icon: sign, label: t(title), key: shortcut.toUpperCase(), then: () => actions.panel(id) })),
    { icon: 'settings', label: t('settings.title'), key: ',', then: actions.settings },
    ...(isTouched() ? [] : [{ icon: 'help', label: t('more.shortcuts'), key: '?', then: actions.shortcuts }]),
  ];
  openMenu($('more-button'), grid.childElementCount ? [grid, ...items] : items, { label: t('key.more'), className: 'menu--more' });
}

/** Toggles picture-in-picture for a tile: by default the large one, or else that of the main speaker. */
async function pip(tile = null) {
  if (document.pictureInPictureElement) return document.exitPictureInPicture();
  const tiles = [...page.stage.tiles];
  const marked = (mark) => tiles.find(({ element }) => element.matches(mark));
  const wanted = tile ?? marked('.is-main') ?? marked('.is-dominant');
  const { video } = wanted?.seat.picture ? wanted : (tiles.find(({ seat }) => seat.picture) ?? {});
  await video?.requestPictureInPicture?.().catch(() => {});
}

const flipItem = () => ({ icon: 'flip', label: t('key.flip'), then: () => flip(page.devices) });

/** The menu of a tile: actions on the tile, and moderation of the person it shows. */
export function tileMenu(tile, anchor) {
  const { stage } = page;
  const items = [{ icon: 'pin', label: t(stage.isPinned(tile) ? 'tile.unpin' : 'tile.pin'), then: () => stage.pin(tile) }];
  if (document.pictureInPictureEnabled && tile.seat.picture) items.push({ icon: 'pip', label: t('more.pip'), then: () => pip(tile) });
  const full = document.fullscreenElement === tile.element;
  const fill = () => (full ? document.exitFullscreen() : tile.element.requestFullscreen()).catch(() => {});
  if (document.fullscreenEnabled) items.push({ icon: 'expand', label: t(full ? 'more.leave_full' : 'more.full'), then: fill });
  if (!tile.isSelf) items.push(slider(tile));
  else if (tile.source === 'camera' && canFlip(page.devices)) items.push(flipItem());
  const more = itemsFor({ peer: tile.peer, name: tile.seat.name, isSelf: tile.isSelf });
  openMenu(anchor, more.length ? [...items, null, ...more] : items, { label: tile.moreKey.title, who: tile.seat.label });
}

function slider({ peer, seat }) {
  const row = element('label', 'menu__slider');
  const made = Object.assign(element('input'), { type: 'range', min: 0, max: 1, step: 0.05, value: page.stage.volumeOf(peer) });
  made.setAttribute('aria-label', t('tile.volume', { name: seat.label }));
  made.addEventListener('input', () => page.stage.setVolume(peer, Number(made.value)));
  made.addEventListener('keydown', (event) => event.key !== 'Escape' && event.stopPropagation());
  row.append(icon('volume'), made);
  return row;
}

/** The dialog that lists the keyboard shortcuts. */
export function shortcuts() {
  const list = element('dl', 'shortcuts');
  const rows = Object.entries(KEYS).map(([key, [name]]) => [key.toUpperCase(), t(PANELS[name]?.title ?? LABELS[name] ?? `shortcut.${name}`)]);
  rows.push([t('shortcut.space'), t('shortcut.push')], ['Esc', t('shortcut.escape')], ['← → ↑ ↓', t('shortcut.arrows')]);
  for (const [key, label] of rows) {
    const row = element('div');
    const term = element('dt');
    term.append(element('kbd', '', key));
    row.append(term, element('dd', '', label));
    list.append(row);
  }
  const off = choices.shortcuts ? [] : [element('p', 'muted', t('shortcut.off'))];
  openDialog({ id: 'shortcuts', title: t('more.shortcuts'), body: [...off, list] });
}
