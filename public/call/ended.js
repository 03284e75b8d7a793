/** An ending that is shown when the page loads: the last call's after a reload, or that of a copied address, which contains no invitation. */

import { styled } from '../base/dom.js';
import { showEnd } from './ending.js';
import { more } from '../i18n/texts.js';

export async function showEnded(ending) {
  await Promise.all([more('late'), styled('before.css')]);
  showEnd(ending);
}
