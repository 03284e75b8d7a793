/** What the address of a room that is entered with invitations shows to whom it was copied: they have none. */

import { styled } from '../base/dom.js';
import { showEnding } from './ending.js';
import { page } from '../app/page.js';
import { endText } from '../i18n/reasons.js';
import { more } from '../i18n/texts.js';

export async function showUninvited(room) {
  await Promise.all([more(), styled('before.css')]);
  page.show('end');
  showEnding(endText({ code: 'uninvited' }, room), () => page.actions.preview({ room: '', name: '' }));
}
