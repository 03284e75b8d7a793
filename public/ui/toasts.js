/** Toasts in a corner of the stage, and announcements for screen readers. */

import { $, button, element, icon } from '../base/dom.js';
import { t } from '../i18n/texts.js';

const SHOWN_MS = 5_000;
const MOST = 3;
const JOINS_MS = 5_000; // minimum time between two announcements

const said = [];
let timer = 0;

/** @typedef {{ action?: Node | { label: string, then: () => void }, icon?: string, ask?: boolean }} Shown */

/**
 * Shows a toast, replacing one with the same id. `action` is { label, then } or a link. A toast with an action stays until it is
 * closed; others stay while the pointer or the focus is on them. `ask` makes it an alert that asks for a decision.
 */
export function toast(id, text, /** @type {Shown} */ { action, icon: name, ask = false } = {}) {
  closeToast(id);
  const line = element('div', ask ? 'toast toast--ask' : 'toast');
  line.dataset.id = id;
  if (ask) line.setAttribute('role', 'alert');
  if (name) line.append(icon(name));
  line.append(element('p', '', text));
  const close = () => line.remove();
  if (action instanceof Node) line.append(action);
  else if (action) {
    line.append(
      button('do', { label: action.label }, () => {
        close();
        action.then();
      }),
    );
  }
  line.append(button('icon-btn', { title: t(ask ? 'not_now' : 'close'), name: 'close' }, close));
  const box = $('notices');
  box.append(line);
  while (box.childElementCount > MOST) box.firstElementChild.remove();
  if (action) return;
  const later = () => setTimeout(() => (line.matches(':hover, :focus-within') ? later() : close()), SHOWN_MS);
  later();
}

export function closeToast(id) {
  $('notices').querySelector(`[data-id="${id}"]`)?.remove();
}

export function clearToasts() {
  $('notices').replaceChildren();
}

/** Announces a text to screen readers; texts in quick succession are announced together, at most the last five. */
export function say(text) {
  said.push(text);
  if (timer) return;
  const flush = () => {
    $('announcer').textContent = said.splice(0).slice(-5).map((one) => (/[.!?؟…]$/.test(one) ? one : `${one}.`)).join(' ');
    timer = setTimeout(() => {
      timer = 0;
      if (said.length) flush();
    }, JOINS_MS);
  };
  flush();
}
