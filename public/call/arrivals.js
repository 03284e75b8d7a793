/** Tells who comes, leaves and raises a hand. */

import { page } from '../app/page.js';
import { chime, Gathered, notify } from '../app/signs.js';
import { t } from '../i18n/texts.js';
import { panels } from '../panels/panel.js';
import { handPlaces } from '../stage/seats.js';
import { closeToast, say, toast } from '../ui/toasts.js';

const FEW = 8; // others in the room up to whom coming and leaving makes a sound
const CROWD = 25; // from which on coming and leaving is told less often
const PAUSE_MS = { room: 3_000, crowd: 30_000 };
const NAMED = 3; // names in one sign
const RETURN_MS = 20_000; // after this page rejoined: the server holds the sessions of others for 15 s, and they rejoin as well

const others = () => page.room.participants.size;
const pause = () => (others() < CROWD ? PAUSE_MS.room : PAUSE_MS.crowd);
const coming = new Gathered((names) => tell('joined', names), pause);
const leaving = new Gathered((names) => tell('left', names), pause);
const hands = new Gathered(tellHands);

let known = new Map(); // peer → name of everybody else in the room
let familiar = new Set(); // names that were here before this page rejoined
let returnedAt = -Infinity;

/** At most three names, the rest as a number. */
const few = (names) => (names.length > NAMED ? [...names.slice(0, NAMED - 1), t('signs.others', { count: names.length - NAMED + 1 })] : names);

function tell(kind, names) {
  const text = t(`signs.${kind}`, { names: few(names), count: names.length });
  say(text);
  toast(kind, text, { icon: 'people', spoken: true });
  if (others() <= FEW) chime(kind);
  if (kind === 'joined' && others() === names.length) notify(kind, text); // the user was alone
}

/** `raised` are { peer, name }, in the order of their hands. */
function tellHands(raised) {
  const [first] = raised;
  const place = handPlaces(page.room).get(first.peer);
  const names = raised.map(({ name }) => name);
  const text = raised.length === 1 && place > 1 ? t('signs.hand_place', { name: first.name, place }) : t('signs.hand', { names: few(names), count: names.length });
  say(text);
  const then = () => panels.show('people');
  if (panels.open !== 'people') toast('hand', text, { icon: 'hand', brief: true, spoken: true, action: { label: t('people.show'), then } });
  chime('hand');
  if (page.room.permissions?.moderate) notify('hand', text, then);
}

const isBack = (name) => familiar.has(name) && performance.now() - returnedAt < RETURN_MS;

page.follow('call', ({ again }) => {
  for (const one of [coming, leaving, hands]) one.clear();
  if (!again) known = new Map();
});
page.follow('welcome', ({ resumed }) => {
  if (resumed) return;
  if (known.size) [familiar, returnedAt] = [new Set([page.room.name, ...known.values()]), performance.now()];
  known = new Map([...page.room.participants.values()].map(({ peer, name }) => [peer, name]));
});
page.follow('joined', ({ peer, name }) => {
  known.set(peer, name);
  if (!isBack(name)) coming.add(peer, name);
});
page.follow('left', ({ peer, name }) => {
  known.delete(peer);
  hands.drop(peer);
  if (!coming.drop(peer) && !isBack(name)) leaving.add(peer, name);
});
page.follow('hand', ({ peer, raised }) => {
  const person = page.room.participants.get(peer);
  if (raised && person) hands.add(peer, person);
  else hands.drop(peer);
  if (!handPlaces(page.room).size) closeToast('hand');
});
