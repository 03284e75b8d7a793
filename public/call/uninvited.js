/** The view for a copied address of a room that requires an invitation: the address contains none. */

import { styled } from '../base/dom.js';
import { showEnding } from './ending.js';
import { page } from '../app/page.js';
import { endText } from '../i18n/reasons.js';
import { more } from '../i18n/texts.js';

export async function showUninvited(room) {
  await Promise.all([more('late'), styled('before.css')]);
  page.show('end');
  showEnding(endText({ code: 'uninvited' }, room), () => page.actions.preview({ room: '', name: '' }));
}
