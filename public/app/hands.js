/** Who wants to speak. */

import { page } from './page.js';

/** The position of each raised hand, starting at 1: peer → position. */
export function handPlaces() {
  const { room } = page;
  const up = [{ peer: room.self, hand: room.hand }, ...room.participants.values()].filter(({ hand }) => hand).sort((a, b) => a.hand - b.hand);
  return new Map(up.map(({ peer }, index) => [peer, index + 1]));
}
