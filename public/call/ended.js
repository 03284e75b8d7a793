/** An ending that is shown without a call: the last one's after a reload, or that of a link that cannot be used. */

import { styled } from '../base/dom.js';
import { showEnd } from './ending.js';
import { more } from '../i18n/texts.js';

export async function showEnded(ending) {
  await Promise.all([more('before', 'late'), styled('before.css')]);
  showEnd(ending);
}
