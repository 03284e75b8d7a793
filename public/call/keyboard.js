/** Fits the call into what a phone's keyboard leaves of the window, in browsers that lay the keyboard over the page (iOS). */

import { $ } from '../base/dom.js';

const LEAST_PX = 60; // lower bars are the browser's own

const { visualViewport: view } = window;

function fit() {
  const covered = view.scale === 1 && innerHeight - view.height > LEAST_PX;
  $('call-view').style.blockSize = covered ? `${view.height}px` : '';
  if (covered) scrollTo(0, 0); // the browser has scrolled to the text field
}

view?.addEventListener('resize', fit);
