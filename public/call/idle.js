/** In full screen the bar fades out without input; any input brings it back. */

import { $ } from '../base/dom.js';

const IDLE_MS = 4_000;

const call = $('call-view');
let timer = 0;

function stir() {
  clearTimeout(timer);
  call.classList.remove('is-idle');
  timer = setTimeout(() => document.fullscreenElement && !call.querySelector('.bar :focus-visible') && call.classList.add('is-idle'), IDLE_MS);
}

for (const type of ['pointermove', 'pointerdown', 'keydown', 'focusin']) addEventListener(type, stir, { passive: true });
document.addEventListener('fullscreenchange', stir);
