/** Sentences in the corner of the stage, and one for those who cannot see them. */

import { $, button, element, icon } from '../base/dom.js';
import { t } from '../i18n/texts.js';

const SHOWN_MS = 5_000;
const MOST = 3;
const JOINS_MS = 5_000; // comings and goings are read out at most this often

const said = [];
let timer = 0;

/** @typedef {{ action?: Node | { label: string, then: () => void }, icon?: string, ask?: boolean }} Shown */

/**
 * Shows a sentence, replacing an earlier one of the same id. `action` is { label, then } or a link; with one it stays until it
 * is closed, and it is a question (role alert) with `ask`. Resting the pointer or the focus on it keeps it.
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

/** Reads a sentence out to those who cannot see it; several close together become one. */
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
