/** How many viewers there are, who have no tile, and how many of them raise a hand: above the tiles. It opens the list of people. */

import { $, button, icon, put } from '../base/dom.js';
import { page } from '../app/page.js';
import { isViewer } from './seats.js';
import { t, texts } from '../i18n/texts.js';

const box = button('viewers', { label: ' ' }, () => page.actions.panel('people'));
box.id = 'viewers';
box.hidden = true;
box.prepend(icon('people'));
$('stage').append(box);

function show() {
  const { room } = page;
  const viewers = [...room.participants.values()].filter(isViewer);
  if (page.listens) viewers.push(room);
  const hands = viewers.filter(({ hand }) => hand).length;
  box.hidden = !viewers.length || !room.participants.size;
  const words = [t('people.viewers', { count: viewers.length }), hands && t('people.hands', { count: hands })];
  put(box.querySelector('span'), words.filter(Boolean).join(' · '));
}

page.on('people', show);
texts.addEventListener('change', () => page.room && show());
show();
