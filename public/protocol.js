/**
 * A client of the signalling protocol "sfu.v1" with one WebRTC connection. No page elements: any page can use it on its own.
 *
 *   const room = new Room({ url: 'wss://meet.example.org/ws', room: 'team-meeting', name: 'alice' });
 *   room.addEventListener('track', ({ detail }) => play(detail.peer, detail.source, detail.track));
 *   room.publish('microphone', track, stream);   // before or after join(), as often as the device changes
 *   room.join();
 *
 * With `token` instead of `room` and `name`, the server takes both from the token. With `ticket`, kept from a Room of a page
 * that was reloaded, the server continues that session if it can.
 *
 * A Room keeps itself joined: it resumes a broken WebSocket, restarts ICE if media fails, and else joins anew, with the same
 * tracks and mute states. `trouble` tells what is under repair. Only leave() and a `bye` without rejoin end it.
 *
 * docs/embedding.md lists its state and its events.
 */

import { Link } from './client/connection.js';
import { GIVEN_UP } from './client/socket.js';

const STEADY_MS = 10_000; // a connection that lasted this long resets the reconnection pauses
const PAUSE_MS = { first: 500, last: 5_000, told: 60_000 }; // told: the longest that the server may ask for
const PATHLESS = { codes: ['ice_timeout', 'dtls_failed'], pause_ms: 10_000, tries: 3 }; // others see every attempt as a join and a leave, so there are few
const NOBODY = { dominant: null, speaking: [] };
const RESTING = { speakers: NOBODY, quality: null };
const participant = ({ tracks = [], ...one }) => ({ hand: 0, ...one, tracks: new Map(tracks.map((track) => [track.source, { ...track, paused: null }])) });
const PASSED_ON = new Set(['chat', 'error', 'waiting', 'draining', 'reaction', 'asked', 'lobby', 'history', 'chat_deleted', 'message', 'move']);

export class Room extends EventTarget {
  state = 'idle';
  error = null;
  retryAt = 0;
  self = null;
  limits = null;
  participants = new Map();
  unreached = null;
  permissions = null;
  settings = {};
  session = '';
  ticket = '';
  hand = 0;
  spotlight = null;
  #live = RESTING; // as the server last told
  #told = this.#live; // as listeners know
  #url;
  #token = '';
  #link = null;
  #flows = false; // whether media has flowed over this link
  #local = new Map();
  #media = new Map(); // mid → { peer, source, track }
  #timer = 0;
  #tries = 0;
  #pathless = 0; // consecutive attempts that found no media path
  #joinedAt = 0;

  /** `url` is the server's /ws; `http:` and `https:` are accepted too. */
  constructor({ url, room = '', name = '', token = '', ticket = '' }) {
    super();
    this.#url = new URL(url);
    this.#url.protocol = this.#url.protocol.replace('http', 'ws');
    if (/^[\w.-]+$/.test(token)) this.#token = token;
    else if (token) this.#url.searchParams.set('token', token); // malformed: the server rejects it with a reason
    else {
      this.#url.searchParams.set('room', room);
      this.#url.searchParams.set('username', name);
    }
    Object.assign(this, { room, name, ticket });
  }

  get pc() {
    return this.#link?.pc ?? null;
  }

  get trouble() {
    return this.#link?.trouble ?? (this.#link && this.unreached ? 'unreached' : null);
  }

  /** Who speaks. Nobody while the connection is under repair: it is not known, and not heard. */
  get speakers() {
    return this.#seen.speakers;
  }

  /** The last `quality` event; null before the first one, and while the connection is under repair. */
  get quality() {
    return this.#seen.quality;
  }

  get #seen() {
    return this.#link && [null, 'unreached'].includes(this.trouble) ? this.#live : RESTING;
  }

  get connected() {
    return (this.#flows || this.#waits) && !['media', 'all'].includes(this.trouble);
  }

  /** Whether it may send nothing and nobody else sends, so that there is no media path yet. */
  get #waits() {
    return this.state === 'joined' && !this.permissions.publish && [...this.participants.values()].every(({ tracks }) => !tracks.size);
  }

  /** Whether it has given up to look for a media path, and tries again only at the next join(). */
  get stalled() {
    return this.state === 'waiting' && this.#pathless >= PATHLESS.tries;
  }

  /** Joins the room; also restarts an ended Room, and ends a pause between two attempts. */
  join() {
    if (this.#link) return this.#link.hurry();
    clearTimeout(this.#timer);
    if (typeof RTCPeerConnection === 'undefined') return this.#end({ code: 'no_webrtc', message: 'This browser has no WebRTC.', rejoin: false });
    const link = new Link(this.#url, { token: this.#token, ticket: this.ticket }, this.#local, {
      event: (event, data) => this.#handle(event, data),
      media: (media) => this.#remap(media),
      connected: () => {
        this.error = this.unreached = null;
        this.#pathless = 0;
        this.#flows = true;
        this.#change('joined');
      },
      trouble: () => this.#change(this.state),
      lost: (error) => this.#lost(error),
    });
    this.#link = link;
    this.#change('joining');
  }

  leave() {
    this.#link?.send('leave', {});
    this.#link?.close();
    this.#end({ code: 'left', message: 'You left.', rejoin: false });
  }

  /** Leaves, but join() may continue the session, like a reloaded page. */
  stepOut() {
    this.#link?.close(GIVEN_UP);
    this.#end({ code: 'left', message: 'You left.', rejoin: false }, this.ticket);
  }

  /** Publishes `track` as `source`, replacing the current one; null stops sending but keeps the transceiver. */
  publish(source, track, stream) {
    const before = this.#local.get(source);
    this.#local.set(source, { ...before, track, stream });
    if (!before?.track) this.#link?.askAgain(source);
    this.#link?.sync(source);
  }

  unpublish(source) {
    if (this.#local.delete(source)) this.#link?.unpublish(source);
  }

  /** Announces the mute state of a source; the caller stops or disables the track itself. */
  mute(source, muted) {
    this.#local.set(source, { ...this.#local.get(source), muted });
    this.#link?.sync(source);
  }

  /** Reports the videos shown: [{ peer, source, width, height }] in device pixels. The server sends no others. */
  view(videos) {
    if (this.state === 'joined') this.#link?.send('view', { videos });
  }

  /** Sends a chat line. False if it cannot be sent now or is longer than the server accepts. */
  chat(text) {
    if (this.state !== 'joined' || new TextEncoder().encode(text).length > this.limits.chat_bytes) return false;
    return this.#link.send('chat', { text });
  }

  /** Sends an event of docs/protocol.md, such as `hand` or `moderate`; false if it cannot be sent now. */
  send(event, data) {
    return this.state === 'joined' && this.#link.send(event, data);
  }

  /** The remote MediaStreamTrack of a peer's source, or null. */
  media(peer, source) {
    for (const one of this.#media.values()) if (one.peer === peer && one.source === source) return one.track;
    return null;
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  #change(state) {
    this.state = state;
    this.#emit('state', { state, error: this.error });
    this.#tellLive();
  }

  /** What is live rests when the connection is cut off, and returns with it. */
  #tellLive() {
    const before = this.#told;
    const now = (this.#told = this.#seen);
    for (const type of ['speakers', 'quality']) if (now[type] !== before[type]) this.#emit(type, now[type]);
  }

  #handle(event, data) {
    const person = this.participants.get(data?.peer);
    if (event === 'welcome') {
      this.session = data.session;
      this.ticket = data.ticket ?? '';
      this.#welcome(data);
    }
    else if (event === 'bye') {
      this.#emit('bye', data);
      this.#link.lose(data.code, data.message, data.rejoin, data.retry_after_s);
    } else if (event === 'joined') {
      this.participants.set(data.peer, participant(data));
      this.#emit('joined', data);
    } else if (event === 'arrivals') {
      for (const { peer, name, moderator, publish, ...more } of data.people) {
        this.participants.set(peer, participant({ peer, name, moderator, publish, ...more }));
        this.#emit('joined', { peer, name, moderator, publish });
      }
    } else if (event === 'left') {
      this.participants.delete(data.peer);
      const { dominant, speaking } = this.#live.speakers;
      const speakers = { dominant: dominant === data.peer ? null : dominant, speaking: speaking.filter((peer) => peer !== data.peer) };
      this.#live = { ...this.#live, speakers };
      if (this.spotlight === data.peer) this.spotlight = null;
      if (person) this.#emit('left', { ...data, name: person.name });
    } else if (event === 'track') {
      person?.tracks.set(data.source, { kind: data.kind, muted: data.muted, paused: null });
      this.#emit('mute', data);
    } else if (event === 'mute') {
      const track = person?.tracks.get(data.source);
      if (track) track.muted = data.muted;
      this.#emit('mute', data);
    } else if (event === 'paused') {
      const track = person?.tracks.get(data.source);
      if (track) track.paused = data.reason;
      this.#emit('paused', data);
    } else if (event === 'track_ended') {
      person?.tracks.delete(data.source);
      this.#remap(new Map([...this.#media].filter(([, one]) => one.peer !== data.peer || one.source !== data.source)));
    } else if (event === 'changed') {
      if (data.peer === this.self) this.name = data.name;
      else if (person) Object.assign(person, { name: data.name, moderator: data.moderator, publish: data.publish });
      this.#emit('changed', data);
    } else if (event === 'permissions') {
      this.permissions = data;
      this.#emit('permissions', data);
      this.#change(this.state);
    } else if (event === 'spotlight') {
      this.spotlight = data.peer;
      this.#emit('spotlight', data);
    } else if (event === 'speakers' || event === 'quality') {
      this.#live = { ...this.#live, [event]: data };
      this.#tellLive();
    } else if (event === 'connection') {
      if (person) person.lost = data.lost;
      this.#emit('connection', data);
    } else if (event === 'hand') {
      if (data.peer === this.self) this.hand = data.raised;
      else if (person) person.hand = data.raised;
      this.#emit('hand', data);
    } else if (event === 'room') {
      this.settings = data;
      this.#emit('room', data);
    } else if (event === 'unreached') {
      if (this.#flows) return; // it crossed the last step of the connection
      this.unreached = data;
      this.#change(this.state);
    } else if (PASSED_ON.has(event)) this.#emit(event, data);
    // unknown events come from a newer server: the protocol allows new events at any time
  }

  #welcome({ peer, room, name, participants, limits, permissions, resumed, state = {} }) {
    const before = this.participants;
    Object.assign(this, { self: peer, room, name, limits, permissions, settings: state });
    this.#live = RESTING;
    if (!resumed) this.hand = 0;
    this.spotlight = null; // if there is one, the server says so next
    this.participants = new Map(participants.map((one) => [one.peer, participant(one)]));
    if (!resumed) this.#joinedAt = performance.now();
    this.#emit('welcome', { peer, room, name, resumed });
    if (resumed) this.#catchUp(before);
    this.state = 'joined';
    if (this.#waits) this.error = this.unreached = null;
    this.#change('joined');
  }

  /** Emits the events that were missed while the WebSocket was broken. */
  #catchUp(before) {
    const now = this.participants;
    this.#remap(new Map([...this.#media].filter(([, { peer, source }]) => now.get(peer)?.tracks.has(source))));
    for (const { peer, name } of before.values()) if (!now.has(peer)) this.#emit('left', { peer, name, reason: 'left' });
    for (const { peer, name } of now.values()) if (!before.has(peer)) this.#emit('joined', { peer, name });
  }

  #remap(media) {
    const before = this.#media;
    this.#media = media;
    const same = (a, b) => a && b && a.peer === b.peer && a.source === b.source && a.track === b.track;
    for (const [mid, { peer, source }] of before) if (!same(before.get(mid), media.get(mid))) this.#emit('trackended', { peer, source });
    for (const [mid, one] of media) if (!same(one, before.get(mid))) this.#emit('track', one);
  }

  #lost(error) {
    const steady = this.state === 'joined' && performance.now() - this.#joinedAt > STEADY_MS;
    if (!error.rejoin) return this.#end(error);
    this.#clear(error.code === 'unreachable' && this.error ? this.error : error); // the original error says more than a failed attempt to reconnect
    if (steady) this.#tries = 0;
    const pathless = PATHLESS.codes.includes(error.code);
    if (pathless) this.#pathless++;
    const told = Math.min(PAUSE_MS.told, (error.retry_after_s ?? 0) * 1000);
    const pause = pathless ? PATHLESS.pause_ms * this.#pathless : Math.min(PAUSE_MS.last, PAUSE_MS.first * 2 ** this.#tries++);
    const wait = told ? told * (1 + Math.random() / 4) : pause * (0.75 + Math.random() / 2); // never sooner than told
    if (!this.stalled) {
      this.retryAt = performance.now() + wait;
      this.#timer = setTimeout(() => this.join(), wait);
    }
    this.#change('waiting');
  }

  #end(error, ticket = '') {
    clearTimeout(this.#timer);
    this.#clear(error);
    this.ticket = ticket;
    this.#tries = this.#pathless = 0;
    this.#change('ended');
  }

  #clear(error) {
    this.error = error;
    this.#flows = false;
    this.#link = null;
    this.#media = new Map();
    this.#live = RESTING;
  }
}
