/**
 * Push-to-talk: the space bar unmutes a muted microphone while it is held. Events that could hide its release mute the
 * microphone too. Loaded with deferred.js.
 *
 * If a button got the focus by keyboard, the space bar presses that button as usual; if the button was clicked, it talks.
 */

import { $ } from '../base/dom.js';
import { page } from '../app/page.js';
import { writes } from './shortcuts.js';
import { choices } from '../base/storage.js';

let down = false; // the space bar was pressed to talk and sends repeats until it is released
let ringed = false; // the focus came by keyboard; recorded on focusin, since any key sets :focus-visible later

const isSpace = ({ key, code }) => code === 'Space' || key === ' '; // some layouts map another character to this key
const presses = (node) => ringed && node.closest?.('button, a, summary, [role=menuitem]');

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return release(); // the system may intercept the following events
  if (!isSpace(event)) return;
  if (event.repeat && down) return event.preventDefault(); // wherever the focus has moved since
  down = false; // if it is still set, the last release was lost
  if (!page.inCall || $('call-view').hidden || !choices.shortcuts || event.defaultPrevented) return;
  if (writes(event.target) || document.querySelector('dialog[open]') || presses(event.target)) return;
  event.preventDefault();
  down = true;
  if (!event.repeat && !page.listens) page.devices.lend('microphone');
}

function lifted(event) {
  if (!isSpace(event) || !down) return;
  event.preventDefault(); // otherwise the release would press a focused button
  down = false;
  release();
}

const release = () => page.devices.takeBack();

addEventListener('keydown', pressed);
addEventListener('keyup', lifted, true);
addEventListener('pointerdown', () => (ringed = false), true);
addEventListener('focusin', (/** @type {FocusEvent & { target: Element }} */ { target }) => {
  ringed = target.matches(':focus-visible');
  if (writes(target) || target.closest('dialog')) release();
});
addEventListener('blur', release);
addEventListener('pagehide', release);
document.addEventListener('visibilitychange', () => document.hidden && release());
