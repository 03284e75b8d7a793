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

const SUBPROTOCOL = 'sfu.v1';
const WELCOME_MS = 10_000; // from dialling to `welcome`
const MEDIA_MS = 30_000; // from `welcome` to a media path; the server gives up before
const SILENT_MS = 5_000; // how long ICE may be disconnected; it often comes back by itself
const STEADY_MS = 10_000; // a connection that lived this long starts the pauses over
const PAUSE_MS = { first: 500, last: 5_000 };
const RATE = { perSecond: 15, burst: 40, queue: 100 }; // under the server's 20 messages/s with bursts of 60
const NOBODY = { dominant: null, speaking: [] };
const CANDIDATES = 30; // the server takes 32 and, being ICE-lite, needs none

/** One WebSocket with one RTCPeerConnection: lives from dialling to the first loss, never longer. */
class Link {
  #socket;
  #pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
  #local; // Map of source → { track, stream, muted }, the room's
  #on;
  #work = Promise.resolve(); // offers and what must not run beside them
  #sections = new Map(); // source → transceiver the server lets us send it in
  #asked = new Set(); // sources asked for with `publish`, not offered yet
  #said = new Map(); // source → mute state the server knows
  #queue = [];
  #credit = RATE.burst;
  #filled = performance.now();
  #timers = {};
  #candidates = 0;
  #reached = false; // media flowed once
  #opened = false;
  #closed = false;

  constructor(url, token, local, on) {
    this.#local = local;
    this.#on = on;
    this.#socket = new WebSocket(url, token ? [SUBPROTOCOL, `token.${token}`] : SUBPROTOCOL); // not in a URL, which is logged
    this.#socket.onmessage = ({ data }) => this.#receive(data);
    this.#socket.onopen = () => (this.#opened = true);
    this.#socket.onclose = () => {
      if (this.#opened) this.lose('connection_lost', 'The connection to the server was lost.');
      else this.lose('unreachable', 'The server cannot be reached, or refuses this page.');
    };
    this.#pc.onicecandidate = ({ candidate }) => {
      if (candidate?.candidate && this.#candidates++ < CANDIDATES) this.send('candidate', JSON.stringify(candidate));
    };
    this.#pc.onconnectionstatechange = () => this.#watch();
    this.#after('welcome', WELCOME_MS, () => this.lose('unreachable', 'The server does not answer.'));
  }

  get pc() {
    return this.#pc;
  }

  /** Queues a message; false when it cannot be sent: not open, or the queue is full. */
  send(event, data) {
    if (this.#socket.readyState !== WebSocket.OPEN || this.#queue.length >= RATE.queue) return false;
    this.#queue.push(JSON.stringify({ event, data }));
    this.#drain();
    return true;
  }

  /** Brings the connection in line with what is published as `source` now. */
  sync(source) {
    this.#serially(() => this.#align(source));
  }

  unpublish(source) {
    this.#asked.delete(source);
    this.#said.delete(source);
    this.send('unpublish', { source });
  }

  /** Lets the next sync() ask the server for a place to send `source` in, even if it was asked before. */
  askAgain(source) {
    this.#asked.delete(source);
  }

  lose(code, message, rejoin = true) {
    if (this.#closed) return;
    this.close();
    this.#on.lost({ code, message, rejoin });
  }

  close() {
    this.#closed = true;
    Object.values(this.#timers).forEach(clearTimeout);
    this.#socket.close();
    this.#pc.onconnectionstatechange = null;
    this.#pc.close();
  }

  #after(name, ms, then) {
    clearTimeout(this.#timers[name]);
    this.#timers[name] = setTimeout(then, ms);
  }

  #drain() {
    const now = performance.now();
    this.#credit = Math.min(RATE.burst, this.#credit + ((now - this.#filled) / 1000) * RATE.perSecond);
    this.#filled = now;
    for (; this.#queue.length && this.#credit >= 1; this.#credit--) this.#socket.send(this.#queue.shift());
    if (this.#queue.length) this.#after('drain', 1000 / RATE.perSecond, () => this.#drain());
  }

  #receive(text) {
    if (this.#closed) return;
    const { event, data } = JSON.parse(text);
    if (event === 'offer') this.#serially(() => this.#answer(JSON.parse(data)));
    else if (event === 'candidate') this.#serially(() => this.#pc.addIceCandidate(JSON.parse(data)));
    else {
      if (event === 'welcome') {
        clearTimeout(this.#timers.welcome);
        this.#after('media', MEDIA_MS, () => this.#mediaFailed());
      }
      this.#on.event(event, data);
    }
  }

  #watch() {
    const state = this.#pc.connectionState;
    clearTimeout(this.#timers.silent);
    if (state === 'connected') {
      clearTimeout(this.#timers.media);
      this.#reached = true;
      this.#on.connected();
    } else if (state === 'failed') this.#mediaFailed();
    else if (state === 'disconnected') this.#after('silent', SILENT_MS, () => this.#mediaFailed());
  }

  #mediaFailed() {
    if (this.#reached) this.lose('media_lost', 'The media path to the server went silent.');
    else this.lose('ice_timeout', 'No media path to the server could be found.');
  }

  #serially(job) {
    this.#work = this.#work
      .then(() => this.#closed || job())
      .catch((error) => this.lose('negotiation_failed', `The media could not be negotiated: ${error.message}`));
  }

  async #answer(offer) {
    await this.#pc.setRemoteDescription({ type: offer.type, sdp: offer.sdp });
    const transceivers = new Map(this.#pc.getTransceivers().map((one) => [one.mid, one]));
    for (const mid of Object.keys(offer.receive)) transceivers.get(mid).direction = 'recvonly';
    this.#sections = new Map(Object.entries(offer.send).map(([mid, source]) => [source, transceivers.get(mid)]));
    for (const [source, section] of this.#sections) {
      const { track, stream } = this.#local.get(source) ?? {};
      section.direction = track || (this.#local.has(source) && sending(section)) ? 'sendonly' : 'inactive';
      await section.sender.replaceTrack(track ?? null);
      if (stream) section.sender.setStreams?.(stream);
    }
    const stereo = [...this.#sections].filter(([source]) => inStereo(source, this.#local.get(source)?.track)).map(([, { mid }]) => mid);
    const answer = await this.#pc.createAnswer();
    await this.#pc.setLocalDescription({ type: 'answer', sdp: withStereo(answer.sdp, offer.sdp, stereo) });
    const { type, sdp } = this.#pc.localDescription;
    this.send('answer', JSON.stringify({ type, sdp }));
    this.#asked = new Set([...this.#asked].filter((source) => !this.#sections.has(source)));
    for (const source of this.#local.keys()) await this.#align(source);
    // keyed by mid: Firefox gives remote tracks other ids than the SDP
    const media = Object.entries(offer.receive).map(([mid, { peer, source }]) => [
      mid,
      { peer, source, track: transceivers.get(mid).receiver.track },
    ]);
    this.#on.media(new Map(media), Number(/^a=candidate:\S+ 1 udp \d+ \S+ (\d+)/im.exec(offer.sdp)?.[1]) || null);
  }

  async #align(source) {
    if (!this.#pc.remoteDescription) return; // the first offer will bring it along
    const { track = null, muted = false } = this.#local.get(source) ?? {};
    const section = this.#sections.get(source);
    if (section && sending(section)) {
      if (section.sender.track !== track) await section.sender.replaceTrack(track);
      if (muted !== (this.#said.get(source) ?? false) && this.send('mute', { source, muted })) this.#said.set(source, muted);
    } else if (track && !this.#asked.has(source) && this.send('publish', { source, kind: track.kind })) {
      this.#asked.add(source);
    }
  }
}

/** Whether a track is worth two channels: a shared tab's sound, or music; voices are not. */
const inStereo = (source, track) => source !== 'microphone' && track?.kind === 'audio' && track.getSettings().channelCount > 1;

/** The answer with Opus in two channels (RFC 7587) where we send so, by mid, and where the offer says that it comes so. */
function withStereo(answer, offer, sent) {
  const sections = (sdp) => sdp.split(/^(?=m=)/m);
  const midOf = (section) => /^a=mid:(\S+)/m.exec(section)?.[1];
  const coming = sections(offer).filter((section) => section.includes('sprop-stereo=1')).map(midOf);
  const parameters = (mid) => (sent.includes(mid) ? ';stereo=1;sprop-stereo=1' : coming.includes(mid) ? ';stereo=1' : '');
  return sections(answer)
    .map((section) => section.replace(/^a=fmtp:\d+ .*useinbandfec=1.*/m, (line) => line + parameters(midOf(section))))
    .join('');
}

const sending = (section) => section.currentDirection === 'sendonly';

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
