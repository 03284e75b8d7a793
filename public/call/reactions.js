/** Reactions: the menu, and the icon on the tile of the person who reacted, or beside the number of viewers, who have no tile. */

import { $, element, icon } from '../base/dom.js';
import { openMenu } from '../ui/overlay.js';
import { page } from '../app/page.js';
import { t } from '../i18n/texts.js';

const REACTIONS = ['thumbs_up', 'heart', 'clap', 'laugh', 'surprise', 'celebrate'];
const SHOWN_MS = 4_000;

/** Opens the menu of six reactions; the digits 1 to 6 choose one. */
export function reactions() {
  const items = REACTIONS.map((reaction) => ({ icon: reaction, label: t(`react.${reaction}`), then: () => page.actions.react(reaction) }));
  const menu = openMenu($('react-button'), items, { label: t('key.react'), className: 'menu--reactions' });
  const digit = ({ key, code }) => menu.querySelectorAll('[role=menuitem]')[(Number(key) || Number(/^Digit(\d)$/.exec(code)?.[1])) - 1]?.click(); // some layouts have other characters there
  menu.addEventListener('keydown', digit, true); // capturing, since the menu stops the event
}

function show({ peer, reaction }) {
  const tile = [...page.stage.tiles].find((one) => one.peer === peer && one.source === 'camera');
  const box = tile?.element ?? $('viewers');
  if (!REACTIONS.includes(reaction)) return;
  box.querySelector('.reaction')?.remove();
  const sign = element('p', 'reaction');
  sign.append(icon(reaction), element('span', 'unseen', t(`react.${reaction}`)));
  box.append(sign);
  setTimeout(() => sign.remove(), SHOWN_MS);
}

page.follow('reaction', show);
