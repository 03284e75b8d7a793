/**
 * Push-to-talk: the space bar opens a muted microphone for as long as it is held. Whatever could hide its release closes the
 * microphone, too. Loaded with deferred.js.
 *
 * On a key that the keyboard was led to the space bar presses that key, as everywhere; on one that was only clicked it does not.
 */

import { $ } from '../base/dom.js';
import { page } from '../app/page.js';
import { writes } from './shortcuts.js';
import { choices } from '../base/storage.js';

let down = false; // the space bar was pressed to talk; it repeats itself until it is up
let ringed = false; // the keyboard brought the focus to where it is, not a pointer: asked then, as any key makes it so later

const isSpace = ({ key, code }) => code === 'Space' || key === ' '; // some layouts have another blank there
const presses = (node) => ringed && node.closest?.('button, a, summary, [role=menuitem]');

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return release(); // the system may keep what follows for itself
  if (!isSpace(event)) return;
  if (event.repeat && down) return event.preventDefault(); // wherever the focus has gone since
  down = false; // the last release was lost, if this is another press
  if (!page.inCall || $('call-view').hidden || !choices.shortcuts || event.defaultPrevented) return;
  if (writes(event.target) || document.querySelector('dialog[open]') || presses(event.target)) return;
  event.preventDefault();
  down = true;
  if (!event.repeat && !page.listens) page.devices.lend('microphone');
}

function lifted(event) {
  if (!isSpace(event) || !down) return;
  event.preventDefault(); // or a key that was clicked before is pressed by this
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
