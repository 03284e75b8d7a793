/**
 * The signalling protocol "sfu.v1" and one WebRTC connection. No DOM: usable alone, by any page.
 *
 *   const room = new Room({ url: 'wss://meet.example.org/ws', room: 'team-meeting', name: 'alice' });
 *   room.addEventListener('track', ({ detail }) => play(detail.peer, detail.source, detail.track));
 *   room.publish('microphone', track, stream);   // before or after join(), as often as the device changes
 *   room.join();
 *
 * With `token` instead of `room` and `name`, the server goes by what the token says.
 *
 * A room keeps itself joined: when the connection or the media path is lost it dials again, with growing pauses, and
 * publishes the same tracks with the same mute states. Only leave() and a final `bye` end it.
 *
 * State (read at any time)
 *   state          'idle' → 'joining' → 'joined' ⇄ 'waiting' (for the next try) → 'ended'
 *   connected      whether media flows; joined comes first
 *   error          { code, message, rejoin } of the last loss, null again once connected
 *   self, limits, permissions   own peer id, what the server accepts and what one may do, from `welcome`
 *   participants   Map of peer → { peer, name, tracks: Map of source → { kind, muted, paused } }, without yourself; `paused`
 *                  is why the server does not forward a video now, or null
 *   speakers       { dominant, speaking }: peers who speak, yourself included; see the event
 *   mediaPort      UDP port of the server's media, as its last offer names it
 *   pc             the current RTCPeerConnection, null between connections
 *
 * Events (detail)
 *   state      { state, error }           any change of state, connected or error
 *   welcome    { peer, room, name }       in the room, possibly again: forget what was known about the others
 *   joined     { peer, name }             left { peer, name, reason }
 *   track      { peer, source, track }    a MediaStreamTrack to play; trackended { peer, source } when it is to stop
 *   mute       { peer, source, muted }    somebody else's source was announced, muted or unmuted
 *   paused     { peer, source, reason }   a video is not forwarded, or again (null)
 *   speakers   { dominant, speaking }     who speaks now, and whom to show large (or null); the room's state has it, too
 *   chat       { peer, name, text, time }
 *   expiring   { seconds }                the token ends then, and with it the call
 *   error      { code, message }          the server refused something; the call goes on
 *   bye        { code, message, rejoin }  the server ended the connection; `state` follows
 * Leaving the state 'joined' ends every track.
 */

import { Link } from './link.js';

const STEADY_MS = 10_000; // a connection that lived this long starts the pauses over
const PAUSE_MS = { first: 500, last: 5_000 };
const NOBODY = { dominant: null, speaking: [] };

export class Room extends EventTarget {
  state = 'idle';
  connected = false;
  error = null;
  self = null;
  limits = null;
  participants = new Map();
  speakers = NOBODY;
  mediaPort = null;
  permissions = null;
  #url;
  #token = '';
  #link = null;
  #local = new Map();
  #shown = null; // what the page shows, once it has said so
  #media = new Map(); // mid → { peer, source, track }
  #timer = 0;
  #tries = 0;
  #joinedAt = 0;

  /** `url` is the server's /ws; `http:` and `https:` will do. */
  constructor({ url, room = '', name = '', token = '' }) {
    super();
    this.#url = new URL(url);
    this.#url.protocol = this.#url.protocol.replace('http', 'ws');
    if (/^[\w.-]+$/.test(token)) this.#token = token;
    else if (token) this.#url.searchParams.set('token', token); // no token at all: the server says so
    else {
      this.#url.searchParams.set('room', room);
      this.#url.searchParams.set('username', name);
    }
    this.room = room;
    this.name = name;
  }

  get pc() {
    return this.#link?.pc ?? null;
  }

  /** Also starts an ended room over, and cuts a pause between two tries short. */
  join() {
    if (this.#link) return;
    clearTimeout(this.#timer);
    const link = new Link(this.#url, this.#token, this.#local, {
      event: (event, data) => this.#handle(event, data),
      media: (media, port) => this.#remap(media, port),
      connected: () => {
        this.error = null;
        this.connected = true;
        this.#change('joined');
      },
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

  /** Sends `track` as `source` from now on; null pauses the source and keeps its seat. */
  publish(source, track, stream) {
    const before = this.#local.get(source);
    this.#local.set(source, { ...before, track, stream });
    if (!before?.track) this.#link?.askAgain(source);
    this.#link?.sync(source);
  }

  unpublish(source) {
    if (this.#local.delete(source)) this.#link?.unpublish(source);
  }

  /** Tells the room that a source is muted; stopping or disabling the track is the caller's. */
  mute(source, muted) {
    this.#local.set(source, { ...this.#local.get(source), muted });
    this.#link?.sync(source);
  }

  /** Tells what is shown now: [{ peer, source, width, height }] in device pixels. The server sends no other videos. */
  view(videos) {
    this.#shown = videos;
    if (this.state === 'joined') this.#link?.send('view', { videos });
  }

  /** False when the line cannot be sent now, or is longer than the server accepts. */
  chat(text) {
    if (this.state !== 'joined' || new TextEncoder().encode(text).length > this.limits.chat_bytes) return false;
    return this.#link.send('chat', { text });
  }

  /** The MediaStreamTrack that plays somebody's source, or null. */
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
  }

  #handle(event, data) {
    const person = this.participants.get(data?.peer);
    if (event === 'welcome') this.#welcome(data);
    else if (event === 'bye') {
      this.#emit('bye', data);
      this.#link.lose(data.code, data.message, data.rejoin);
    } else if (event === 'joined') {
      this.participants.set(data.peer, { ...data, tracks: new Map() });
      this.#emit('joined', data);
    } else if (event === 'left') {
      this.participants.delete(data.peer);
      const { dominant, speaking } = this.speakers;
      this.speakers = { dominant: dominant === data.peer ? null : dominant, speaking: speaking.filter((peer) => peer !== data.peer) };
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
    } else if (event === 'speakers') {
      this.speakers = data;
      this.#emit('speakers', data);
    } else if (['chat', 'expiring', 'error'].includes(event)) this.#emit(event, data);
    // anything else is from a newer server: the protocol allows new events at any time
  }

  #welcome({ peer, room, name, participants, limits, permissions }) {
    this.self = peer;
    Object.assign(this, { limits, permissions });
    Object.assign(this, { room, name });
    this.participants = new Map(
      participants.map((one) => [one.peer, { ...one, tracks: new Map(one.tracks.map((track) => [track.source, { ...track, paused: null }])) }]),
    );
    this.#joinedAt = performance.now();
    this.#emit('welcome', { peer, room, name });
    this.#change('joined');
  }

  #remap(media, port = this.mediaPort) {
    const before = this.#media;
    this.#media = media;
    this.mediaPort = port;
    const same = (a, b) => a && b && a.peer === b.peer && a.source === b.source && a.track === b.track;
    for (const [mid, { peer, source }] of before) if (!same(before.get(mid), media.get(mid))) this.#emit('trackended', { peer, source });
    for (const [mid, one] of media) if (!same(one, before.get(mid))) this.#emit('track', one);
  }

  #lost(error) {
    const steady = this.state === 'joined' && performance.now() - this.#joinedAt > STEADY_MS;
    if (!error.rejoin) return this.#end(error);
    this.#clear(error.code === 'unreachable' && this.error ? this.error : error); // why it was lost tells more than a vain try
    if (steady) this.#tries = 0;
    const pause = Math.min(PAUSE_MS.last, PAUSE_MS.first * 2 ** this.#tries++);
    this.#timer = setTimeout(() => this.join(), pause * (0.75 + Math.random() / 2));
    this.#change('waiting');
  }

  #end(error) {
    clearTimeout(this.#timer);
    this.#clear(error);
    this.#tries = 0;
    this.#change('ended');
  }

  #clear(error) {
    this.error = error;
    this.connected = false;
    this.#link = null;
    this.#media = new Map();
    this.speakers = NOBODY;
  }
}
