/** Toasts in a corner of the stage, and announcements for screen readers. */

import { $, button, element, icon, nameWith } from '../base/dom.js';
import { t } from '../i18n/texts.js';

const SHOWN_MS = 5_000;
const MOST = 3;
const MOVED_MS = 200; // until screen readers know an element that has moved
const SAID_MS = 5_000; // minimum time between two announcements

const MOST_SAID = 5;

const box = $('notices');
const announcer = $('announcer');
const said = [];
let timer = 0;

/** @typedef {{ action?: Node | { label: string, then: () => void }, icon?: string, ask?: boolean, brief?: boolean, spoken?: boolean }} Shown */

/**
 * Shows a toast, replacing one with the same id. `action` is { label, then } or a link. A toast with an action stays until it is
 * closed, unless it is `brief`; others stay while the pointer or the focus is on them. `ask` makes it an alert that asks for a
 * decision: it stands below the others, and these never displace it. Screen readers read a toast, unless the caller has `spoken`.
 */
export function toast(id, text, /** @type {Shown} */ { action, icon: name, ask = false, brief = !action, spoken = false } = {}) {
  closeToast(id);
  const line = element('div', ask ? 'toast toast--ask' : 'toast');
  line.dataset.id = id;
  if (spoken) line.setAttribute('aria-live', 'off');
  else if (ask) line.setAttribute('role', 'alert');
  if (ask && !spoken && openDialog()) say(text);
  if (name) line.append(icon(name));
  const words = element('p', '', text);
  line.append(words);
  const close = () => line.remove();
  const keys = element('span', 'toast__keys'); // they wrap together
  if (action instanceof Node) keys.append(action);
  else if (action) {
    keys.append(
      button('do', { label: action.label }, () => {
        close();
        action.then();
      }),
    );
  }
  keys.append(button('icon-btn', { title: t(ask ? 'not_now' : 'close'), name: 'close' }, close));
  line.append(keys);
  for (const one of line.querySelectorAll('button')) nameWith(one, words);
  box.insertBefore(line, ask ? null : box.querySelector('.toast--ask'));
  while (box.childElementCount > MOST) (box.querySelector('.toast:not(.toast--ask)') ?? box.firstElementChild).remove();
  if (!brief) return;
  const later = () => setTimeout(() => (line.matches(':hover, :focus-within') ? later() : close()), SHOWN_MS);
  later();
}

const find = (id) => box.querySelector(`[data-id="${id}"]`);
export const hasToast = (id) => find(id) !== null;
export const closeToast = (id) => find(id)?.remove();

export function clearToasts() {
  box.replaceChildren();
}

const openDialog = () => [...document.querySelectorAll('dialog[open]')].at(-1);

/** Announces a text to screen readers; texts in quick succession are announced together, at most the last five. */
export function say(text) {
  if (said.push(text) > MOST_SAID) said.shift();
  if (!timer) flush();
}

function flush() {
  const text = said.splice(0).map((one) => (/[.!?؟…]\u2069?$/.test(one) ? one : `${one}.`)).join(' ');
  if (reachable()) announcer.textContent = text;
  else setTimeout(() => (announcer.textContent = text), MOVED_MS);
  timer = setTimeout(() => {
    timer = 0;
    if (said.length) flush();
  }, SAID_MS);
}

/** A modal dialog makes the rest of the page inert: the announcer moves into it. False if it had to move. */
function reachable() {
  const dialog = openDialog();
  if (!dialog || dialog.contains(announcer)) return true;
  dialog.append(announcer);
  dialog.addEventListener('close', () => document.body.append(announcer), { once: true });
  return false;
}

/** A tile in full screen hides the stage: the toasts move into it. */
function followFullScreen() {
  const full = document.fullscreenElement;
  (full?.matches('.tile') ? full : $('stage')).append(box);
}

document.addEventListener('fullscreenchange', followFullScreen);
