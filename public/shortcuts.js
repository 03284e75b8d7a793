/** Single keys in the call. They do nothing while one writes or a dialog is open, and can be turned off (WCAG 2.1.4). */

import { $, element } from './dom.js';
import { openReactions } from './bar.js';
import { openDialog } from './overlay.js';
import { page } from './page.js';
import { panels } from './panel.js';
import { choices } from './storage.js';
import { t } from './texts.js';

const KEYS = {
  m: ['microphone', () => page.actions.toggle('microphone')],
  v: ['camera', () => page.actions.toggle('camera')],
  s: ['share', () => $('screen-button').click()],
  h: ['hand', () => page.actions.hand()],
  r: ['react', () => openReactions()],
  c: ['chat', () => panels.toggle('chat')],
  p: ['people', () => panels.toggle('people')],
  g: ['view', () => page.actions.view()],
  i: ['stats', () => panels.toggle('stats')],
  f: ['full', () => page.actions.fullScreen()],
  ',': ['settings', () => page.actions.settings()],
  '?': ['list', () => openShortcuts()],
};
const LABELS = { chat: 'chat.title', people: 'people.title', stats: 'stats.title', full: 'more.full', settings: 'settings.title' };

let pushed = false; // the space bar holds the microphone open

const writes = (node) => node?.closest?.('input:not([type=range]), textarea, select, [contenteditable]');
const presses = (node) => node?.closest?.('button, a, [role=menuitem]');

function down(event) {
  if (!page.inCall || $('call-view').hidden || !choices.shortcuts || event.defaultPrevented) return;
  if (event.ctrlKey || event.metaKey || event.altKey || writes(event.target) || document.querySelector('dialog[open]')) return;
  if (event.key === ' ') return push(event);
  const known = Object.hasOwn(KEYS, event.key.toLowerCase()) && KEYS[event.key.toLowerCase()];
  if (!known || event.repeat) return;
  event.preventDefault();
  known[1]();
}

function push(event) {
  if (presses(event.target)) return; // there the space bar presses
  event.preventDefault();
  if (event.repeat || pushed || page.devices.status('microphone') !== 'off') return;
  pushed = true;
  page.actions.toggle('microphone');
}

function release() {
  if (!pushed) return;
  pushed = false;
  page.devices.stop('microphone');
}

/** The dialog that lists them. */
export function openShortcuts() {
  const list = element('dl', 'shortcuts');
  const rows = Object.entries(KEYS).map(([key, [name]]) => [key.toUpperCase(), t(LABELS[name] ?? `shortcut.${name}`)]);
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

export function startShortcuts() {
  addEventListener('keydown', down);
  addEventListener('keyup', ({ key }) => key === ' ' && release());
  addEventListener('blur', release);
}
