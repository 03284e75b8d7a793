/** The invitation dialog: the room's link and QR code, or, without a link, how to invite people. */

import { button, element } from '../base/dom.js';
import { copyText } from '../ui/here.js';
import { openDialog } from '../ui/overlay.js';
import { page } from '../app/page.js';
import { qrCode } from '../ui/qr.js';
import { t } from '../i18n/texts.js';

export function openInvite() {
  const { link, room } = page;
  if (!link) return openDialog({ id: 'invite', title: t('link.title'), body: element('p', 'lead', t(room.permissions.moderate ? 'link.moderator' : 'link.private', { room: room.room })), className: 'dialog--small' });
  const key = room.settings.locked ? 'link.locked' : room.settings.lobby ? 'link.lobby' : 'link.text';
  const words = element('div', 'stack');
  const field = element('p', 'copy');
  const address = element('span', 'cut', link);
  address.dir = 'ltr';
  const copy = button('btn btn--primary', { label: t('copy'), name: 'copy' }, async () => {
    const done = await copyText(link);
    if (!done) getSelection().selectAllChildren(address); // copying is not allowed: Ctrl+C does it
    said.textContent = t(done ? 'link.copied' : 'link.by_hand');
  });
  const said = element('p', 'hint');
  said.setAttribute('role', 'status');
  field.append(address, copy);
  words.append(element('p', 'lead', t(key, { room: room.room })), field, said);
  const code = element('div', 'invite__code');
  code.append(qrCode(link, t('link.qr')), element('p', 'small muted', t('link.phone')));
  const dialog = openDialog({ id: 'invite', title: t('link.title'), body: [words, code], className: 'dialog--invite' });
  copy.focus();
  return dialog;
}
