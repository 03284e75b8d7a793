/** The seats on the stage: one for each participant who may send, and for each screen. Viewers have one only if nobody else is there. Sets mute handlers on the tracks. */

import { number, t } from '../i18n/texts.js';
import { pausedText } from '../i18n/words.js';

const OF_SCREEN = /^screen(-audio)?$/;

/**
 * @typedef {{ peer: string, source: string, name: string, label: string, sounds: MediaStreamTrack[], picture: MediaStreamTrack,
 *   key?: string, isSelf?: boolean, muted?: boolean, paused?: string, hand?: number }} Seat
 */

/** Whether a participant only watches and listens. */
export const isViewer = ({ publish, tracks }) => !publish && !tracks.size;

/** The position of each raised hand, starting at 1: peer → position. */
export function handPlaces(room) {
  const up = [{ peer: room.self, hand: room.hand }, ...room.participants.values()].filter(({ hand }) => hand).sort((a, b) => a.hand - b.hand);
  return new Map(up.map(({ peer }, index) => [peer, index + 1]));
}

/** Names that differ, in sound as well: peer → name, with a number from the second person of a name on. */
export function spokenNames(people) {
  const seen = {};
  const spoken = (name, key) => ((seen[key] = (seen[key] ?? 0) + 1) > 1 ? `${name} (${number(seen[key])})` : name);
  return new Map([...people].map(({ peer, name }) => [peer, spoken(name, name.toLowerCase())]));
}

/** All seats, your own last; without `me` you have none. `changed` is called when a video track mutes or unmutes. */
export function seatsOf(room, me, changed) {
  const people = [...room.participants.values()];
  const senders = people.filter((person) => !isViewer(person));
  const spoken = spokenNames(people);
  const seats = (me || senders.length ? senders : people).flatMap((person) => seatsOfOne(room, person, spoken.get(person.peer), changed));
  const self = { peer: room.self ?? 'self', isSelf: true, name: room.name, sounds: [] };
  if (me?.screen) seats.push({ ...self, source: 'screen', label: t('tile.your_screen'), picture: me.screen });
  if (me) seats.push({ ...self, source: 'camera', label: t('you'), picture: me.picture, muted: me.muted });
  const hands = handPlaces(room);
  for (const seat of seats) Object.assign(seat, { key: `${seat.peer} ${seat.source}`, hand: (seat.source === 'camera' && hands.get(seat.peer)) || 0 });
  return seats;
}

/** @returns {Seat[]} */
function seatsOfOne(room, { peer, name, tracks, lost }, spoken, changed) {
  const paused = (source) => {
    const { paused: reason, muted: off } = tracks.get(source) ?? {};
    return lost || (reason && !off) ? pausedText(lost ? 'lost' : reason) : null;
  };
  const picture = (source) => {
    const track = tracks.get(source)?.muted || paused(source) ? null : room.media(peer, source);
    if (!track) return null;
    // a <video> plays no sound before the first frame: leave the video track out until frames arrive
    track.onmute = track.onunmute = changed;
    return track.muted ? null : track;
  };
  const of = (kind) => [...tracks].filter(([, track]) => track.kind === kind).map(([source]) => source);
  const sounds = (sources) => sources.map((source) => room.media(peer, source)).filter(Boolean);
  const others = of('video').filter((source) => source !== 'camera' && !tracks.get(source).muted); // a muted screen is one that is no longer shared
  const screenOf = (one, source) => (source === 'screen' ? t('tile.screen', { name: one }) : t('tile.source', { name: one, source }));
  const screens = others.map((source) => ({
    ...{ peer, source, name, picture: picture(source), paused: paused(source) },
    label: screenOf(spoken, source),
    sounds: source === 'screen' ? sounds(['screen-audio']) : [],
  }));
  const ownSounds = sounds(of('audio').filter((source) => !OF_SCREEN.test(source) || !others.includes('screen')));
  const microphone = tracks.get('microphone');
  const muted = !microphone || microphone.muted;
  return [...screens, { peer, source: 'camera', name, label: spoken, sounds: ownSounds, muted, picture: picture('camera'), paused: paused('camera') }];
}
