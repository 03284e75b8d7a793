/**
 * Dialogs and menus. Both are modal <dialog> elements: the browser keeps the focus inside, closes them on Escape and restores
 * the focus. A click outside closes them too. On phones, menus slide up from the bottom.
 */

import { button, element, icon, styled } from '../base/dom.js';
import { t } from '../i18n/texts.js';

const MARGIN_PX = 8;

function show(dialog, returnTo = /** @type {HTMLElement} */ (document.activeElement)) {
  dialog.addEventListener('click', ({ target }) => target === dialog && dialog.close());
  dialog.addEventListener('close', () => {
    dialog.remove();
    if (returnTo?.isConnected && !document.querySelector('dialog[open]')) returnTo.focus();
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/**
 * Opens a dialog with a heading and a close button, replacing one with the same id. Returns the <dialog>.
 * @param {{ id: string, title: string, body: Node | Node[], foot?: Node | Node[], className?: string }} made
 */
export function openDialog({ id, title, body, foot, className = '' }) {
  /** @type {HTMLDialogElement} */ (document.getElementById(id))?.close();
  const dialog = element('dialog', `dialog ${className}`);
  dialog.id = id;
  dialog.setAttribute('aria-labelledby', `${id}-title`);
  const heading = element('h2', '', title);
  heading.id = `${id}-title`;
  const head = element('header', 'dialog__head');
  head.append(heading, button('icon-btn', { title: t('close'), name: 'close' }, () => dialog.close()));
  const inside = element('div', 'dialog__body');
  inside.append(...[body].flat());
  const frame = element('div', 'dialog__frame'); // fills the dialog, so that only clicks on the backdrop target the dialog itself
  frame.append(head, inside);
  if (foot) {
    const row = element('footer', 'dialog__foot');
    row.append(...[foot].flat());
    frame.append(row);
  }
  dialog.append(frame);
  return show(dialog);
}

/**
 * Opens a menu at an element. Items: { icon, label, key, checked, bad, then }, a Node to insert, or null for a separator.
 * `className` adds a variant's class. Arrow keys, Home, End and first letters move the focus.
 */
export function openMenu(anchor, items, /** @type {{ label?: string, className?: string, who?: string }} */ { label, className = '', who } = {}) {
  const dialog = element('dialog', `menu ${className}`);
  dialog.setAttribute('aria-label', label);
  if (who) dialog.append(Object.assign(element('p', 'menu__who', who), { dir: 'auto' }));
  const menu = element('div', 'menu__items');
  menu.setAttribute('role', 'menu');
  menu.setAttribute('aria-label', label);
  menu.append(...items.map((item) => (item instanceof Node ? item : item ? entry(item, dialog) : line())));
  dialog.append(menu);
  menu.addEventListener('keydown', (event) => move(event, [...menu.querySelectorAll('[role^=menuitem]')]));
  anchor.setAttribute('aria-expanded', 'true');
  const closed = new AbortController();
  dialog.addEventListener('close', () => {
    anchor.setAttribute('aria-expanded', 'false');
    closed.abort();
  });
  addEventListener('resize', () => dialog.close(), { signal: closed.signal }); // its place is gone
  show(dialog, anchor);
  place(dialog, anchor);
  (menu.querySelector('[aria-checked=true]') ?? menu.querySelector('[role^=menuitem]'))?.focus();
  return dialog;
}

function line() {
  const made = element('hr');
  made.setAttribute('role', 'separator');
  return made;
}

function entry({ icon: name, label, key, checked, bad, then }, dialog) {
  const made = button(bad ? 'bad' : '', {}, () => {
    dialog.close();
    then();
  });
  made.setAttribute('role', checked === undefined ? 'menuitem' : 'menuitemradio');
  if (checked !== undefined) made.setAttribute('aria-checked', String(checked));
  if (name) made.append(icon(name));
  made.append(element('span', '', label));
  if (key) {
    made.append(element('kbd', '', key));
    made.setAttribute('aria-keyshortcuts', key);
  }
  return made;
}

function move(event, entries) {
  const now = entries.indexOf(document.activeElement);
  const letter = event.key.length === 1 && event.key.toLowerCase();
  const rest = [...entries.slice(now + 1), ...entries.slice(0, now + 1)];
  const next = {
    ArrowDown: rest[0],
    ArrowUp: entries.at(now - 1),
    ArrowRight: rest[0],
    ArrowLeft: entries.at(now - 1),
    Home: entries[0],
    End: entries.at(-1),
  }[event.key];
  const found = next ?? (letter && rest.find((one) => one.innerText.trim().toLowerCase().startsWith(letter)));
  event.stopPropagation(); // otherwise letters would trigger the page's shortcuts
  if (!found) return;
  event.preventDefault();
  found.focus();
}

/** Positions a menu below an anchor in the upper half of the window, otherwise above, aligned to its inline end. */
function place(dialog, anchor) {
  const at = anchor.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = dialog;
  const start = document.documentElement.dir === 'rtl' ? at.left : at.right - width;
  const x = Math.max(MARGIN_PX, Math.min(start, innerWidth - width - MARGIN_PX));
  const wanted = at.top < innerHeight / 2 ? at.bottom + MARGIN_PX : at.top - height - MARGIN_PX;
  const y = Math.min(wanted, innerHeight - height - MARGIN_PX);
  dialog.style.setProperty('--x', `${x}px`);
  dialog.style.setProperty('--y', `${Math.max(MARGIN_PX, y)}px`);
}

await styled('later.css');
