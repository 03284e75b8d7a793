/** Single-key shortcuts in the call, inactive in text fields and open dialogs. They can be turned off (WCAG 2.1.4). */

import { $ } from '../base/dom.js';
import { page } from '../app/page.js';
import { choices } from '../base/storage.js';
import { PANELS } from '../panels/list.js';

export const KEYS = {
  m: ['microphone', () => page.actions.toggle('microphone')],
  v: ['camera', () => page.actions.toggle('camera')],
  s: ['share', () => $('screen-button').click()],
  h: ['hand', () => page.actions.hand()],
  r: ['react', () => page.actions.reactions()],
  ...Object.fromEntries(Object.entries(PANELS).map(([id, { shortcut }]) => [shortcut, [id, () => page.actions.panel(id)]])),
  g: ['view', () => page.actions.view()],
  f: ['full', () => page.actions.fullScreen()],
  ',': ['settings', () => page.actions.settings()],
  '?': ['list', () => page.actions.shortcuts()],
};

/** Positions of the shortcuts that are no letters. */
const OTHERS = { Comma: ',', 'Shift+Slash': '?' };

let opening = 0; // number of modules requested by the user that are still loading
const typed = []; // keys pressed meanwhile

/** The text field around a node, if there is one: keys pressed in it are text. */
export const writes = (node) => node?.closest?.('input:not([type=range]), textarea, select, [contenteditable]');

/** The shortcut that a key stands for; on layouts without Latin letters, by the key's position. */
function letterOf({ key, code, shiftKey }) {
  const typed = key.toLowerCase();
  if (key.length !== 1 || key < '\x80') return typed in KEYS ? typed : '';
  return OTHERS[`${shiftKey ? 'Shift+' : ''}${code}`] ?? /^Key([A-Z])$/.exec(code)?.[1].toLowerCase() ?? '';
}

function down(event) {
  if (!page.inCall || $('call-view').hidden || event.defaultPrevented) return;
  if (event.ctrlKey || event.metaKey || event.altKey || writes(event.target) || document.querySelector('dialog[open]')) return;
  if (opening) return keep(event);
  if (!choices.shortcuts) return;
  const known = KEYS[letterOf(event)];
  if (!known || event.repeat) return;
  event.preventDefault();
  known[1]();
}

/** Queues a key while a module loads, so that one can start to type into a chat that is not open yet. */
function keep(event) {
  if (event.key === 'Tab') return;
  event.preventDefault();
  if (event.key === 'Backspace') typed.pop();
  else if (!event.repeat && (event.key.length === 1 || event.key === 'Enter' || event.key === 'Escape')) typed.push(event.key);
}

/** Queues keys until `coming` settles, then sends them to the element that has the focus. */
export async function hold(coming) {
  opening++;
  try {
    return await coming;
  } finally {
    if (!--opening) typed.splice(0).forEach(type);
  }
}

function type(key) {
  const target = /** @type {HTMLInputElement} */ (document.activeElement);
  if (key.length === 1 && writes(target)) {
    target.setRangeText?.(key, target.selectionStart, target.selectionEnd, 'end');
    target.dispatchEvent(new InputEvent('input', { bubbles: true }));
  } else if (key !== ' ') {
    target.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true })); // no space: push-to-talk would miss its release
  }
}

export function startShortcuts() {
  addEventListener('keydown', down);
}
