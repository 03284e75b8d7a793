/**
 * One stay of protocol.js in a room: an RTCPeerConnection, negotiated over a WebSocket that speaks "sfu.v1". Rooms and people
 * are not its business; what it hears of them goes to `on.event`.
 *
 * It repairs what breaks: a WebSocket that is lost while media flows is replaced and the session resumed; a media path that
 * goes silent gets new ICE credentials. `trouble` says what is under repair. Only when that fails is the link lost.
 */

import { Socket } from './socket.js';

const WELCOME_MS = 10_000; // from dialling to `welcome`
const MEDIA_MS = 30_000; // from `welcome` to a media path; the server gives up before
const RESUME_MS = { first: 1_000, spread: 2_000, last: 6_000, all: 20_000 }; // the server holds a session for 15 s
const PULSE_MS = 500; // how often the media path is looked at
const DEAF_MS = { dense: 1_500, thin: 3_000 }; // nothing at all has come for so long, after sound or pictures, or after reports, which come every second
const DENSE = 4; // looks in a row at which something had come
const FRESH_MS = 1_200; // so long media that came counts as flowing
const DISCONNECTED_MS = 2_000; // how long ICE may be disconnected: it often comes back by itself
const ASLEEP_MS = 10_000; // a timer that was so late has slept, and the network may be another
const RESTART_MS = 4_000; // between two requests for new ICE credentials; the server takes one in 2 s
const OFFER_MS = 3_000; // for the offer that has them; a WebSocket that does not bring it is dead, whatever it says
const LOST_MS = 15_000; // how long media may be silent before the link is given up
const CANDIDATES = 30; // the server takes 32 and, being ICE-lite, needs none

/** What is sent in the layers that the server offers, by rid: of what moves, and of what is to be read (`contentHint`). */
const MOTION = {
  q: { scaleResolutionDownBy: 4, maxBitrate: 150_000 },
  h: { scaleResolutionDownBy: 2, maxBitrate: 500_000 },
  f: { scaleResolutionDownBy: 1, maxBitrate: 2_500_000 },
};
const DETAIL = {
  q: { scaleResolutionDownBy: 2, maxFramerate: 5, maxBitrate: 250_000 },
  h: { scaleResolutionDownBy: 1, maxFramerate: 5, maxBitrate: 800_000 },
  f: { scaleResolutionDownBy: 1, maxFramerate: 30, maxBitrate: 2_500_000 },
};

/** From dialling to what cannot be repaired, never longer. */
export class Link {
  #url;
  #socket;
  #pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
  #local; // Map of source → { track, stream, muted }, the room's
  #on;
  #work = Promise.resolve(); // offers and what must not run beside them
  #sections = new Map(); // source → transceiver the server lets us send it in
  #asked = new Set(); // sources asked for with `publish`, not offered yet
  #active = new Map(); // source → rids that anybody watches, once the server has said so
  #said = new Map(); // source → mute state the server knows
  #timers = {};
  #candidates = 0;
  #reached = false; // media flowed once
  #closed = false;
  #secret = ''; // of the session
  #cutAt = 0; // when the WebSocket was lost; 0 while there is one
  #tries = 0; // to resume
  #deafSince = 0; // when the media path went silent; 0 while it works
  #restartedAt = -Infinity;
  // what has come over the media path, when last (`from`: the look before), and at how many looks in a row
  #heard = { bytes: 0, bytesAt: 0, from: 0, all: 0, at: 0, run: 0 };
  #lookedAt = 0;
  #toldTrouble = null;
  #beatAt = Date.now();
  #changed = () => this.#repair();

  constructor(url, token, local, on) {
    this.#url = url;
    this.#local = local;
    this.#on = on;
    this.#dial(token && `token.${token}`);
    this.#pc.onicecandidate = ({ candidate }) => {
      if (candidate?.candidate && this.#candidates++ < CANDIDATES) this.send('candidate', JSON.stringify(candidate));
    };
    this.#pc.onconnectionstatechange = () => this.#watch();
    this.#timers.pulse = setInterval(() => this.#pulse(), PULSE_MS);
    globalThis.addEventListener?.('online', this.#changed);
    navigator.connection?.addEventListener?.('change', this.#changed);
  }

  get pc() {
    return this.#pc;
  }

  /**
   * What is under repair: null, 'media' while the media path is silent, and while the WebSocket is being replaced what is known
   * of media since: 'connection' where it flows, 'all' where it is silent, 'unknown' where neither was measured yet.
   */
  get trouble() {
    if (!this.#cutAt) return this.#deafSince ? 'media' : null;
    if (this.#deafSince) return 'all';
    const { bytesAt, from } = this.#heard; // what came between two looks, the first of which was after the cut
    return from > this.#cutAt && performance.now() - bytesAt < FRESH_MS ? 'connection' : 'unknown';
  }

  /** Queues a message; false when it cannot be sent. */
  send(event, data) {
    return !this.#cutAt && this.#socket.send(event, data);
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

  /** Cuts a pause before the next try to resume short. */
  hurry() {
    if (this.#timers.resume) this.#resume();
  }

  lose(code, message, rejoin = true) {
    if (this.#closed) return;
    this.close();
    this.#on.lost({ code, message, rejoin });
  }

  close() {
    this.#closed = true;
    Object.values(this.#timers).forEach(clearTimeout); // clears intervals, too
    globalThis.removeEventListener?.('online', this.#changed);
    navigator.connection?.removeEventListener?.('change', this.#changed);
    this.#socket.close();
    this.#pc.onconnectionstatechange = null;
    this.#pc.close();
  }

  #after(name, ms, then) {
    this.#cancel(name);
    this.#timers[name] = setTimeout(() => {
      this.#timers[name] = 0;
      then();
    }, ms);
  }

  #cancel(name) {
    clearTimeout(this.#timers[name]);
    this.#timers[name] = 0;
  }

  // --- the WebSocket ---

  #dial(value) {
    const socket = new Socket(this.#url, value, {
      message: (event, data) => this.#receive(socket, event, data),
      closed: (opened) => {
        if (opened) this.#cut('connection_lost', 'The connection to the server was lost.');
        else this.#cut('unreachable', 'The server cannot be reached, or refuses this page.');
      },
    });
    this.#socket = socket;
    this.#after('welcome', WELCOME_MS, () => this.#cut('unreachable', 'The server is not responding.'));
  }

  #receive(socket, event, data) {
    if (event === 'offer') {
      this.#cancel('offer');
      this.#serially(() => this.#answer(JSON.parse(data), socket));
    } else if (event === 'candidate') this.#serially(() => this.#pc.addIceCandidate(JSON.parse(data)));
    else if (event === 'layers') {
      this.#active.set(data.source, data.active);
      const section = this.#sections.get(data.source);
      if (section) this.#serially(() => this.#layer(data.source, section));
    }
    else {
      if (event === 'waiting') this.#cancel('welcome'); // for how long, the server says
      if (event === 'welcome') this.#welcome(data);
      this.#on.event(event, data);
    }
  }

  #welcome({ session, resumed }) {
    this.#cancel('welcome');
    this.#secret = session;
    if (!resumed) return this.#after('media', MEDIA_MS, () => this.#mediaFailed());
    this.#cutAt = this.#tries = 0;
    this.#asked.clear();
    for (const source of this.#sections.keys()) {
      this.#said.set(source, null); // what was said last may not have arrived
      if (!this.#local.has(source) && sending(this.#sections.get(source))) this.unpublish(source);
    }
    for (const source of this.#local.keys()) this.sync(source);
    if (this.#deafSince) this.#restart();
    this.#tell();
  }

  /** The WebSocket is gone, or as good as. While media may flow, another one takes its place. */
  #cut(code, message, pause = RESUME_MS.first + Math.random() * RESUME_MS.spread) {
    const now = performance.now();
    for (const timer of ['welcome', 'offer']) this.#cancel(timer);
    this.#restartedAt = -Infinity; // it may have asked for nothing
    this.#socket.close();
    this.#cutAt ||= now;
    const over = this.#pc.connectionState === 'failed' || now - this.#cutAt > RESUME_MS.all;
    if (!this.#secret || !this.#reached || over) return this.lose(code, message);
    this.#after('resume', Math.min(pause * 1.5 ** this.#tries++, RESUME_MS.last), () => this.#resume());
    this.#tell();
  }

  #resume() {
    this.#cancel('resume');
    this.#dial(`resume.${this.#secret}`);
  }

  // --- the media path ---

  #watch() {
    const state = this.#pc.connectionState;
    this.#cancel('silent');
    if (state === 'connected') {
      this.#cancel('media');
      this.#reached = true;
      this.#hears();
      this.#on.connected();
    } else if (state === 'failed' && !this.#reached) this.#mediaFailed();
    else if (state === 'failed') this.#deaf();
    else if (state === 'disconnected') this.#after('silent', DISCONNECTED_MS, () => this.#deaf());
  }

  /** Twice a second: has this machine slept, has anything come? */
  async #pulse() {
    const late = Date.now() - this.#beatAt > ASLEEP_MS;
    this.#beatAt = Date.now();
    if (!this.#reached) return;
    if (late) this.#repair();
    const now = performance.now();
    const { bytes, all } = await received(this.#pc);
    if (this.#closed) return;
    const { bytes: before, bytesAt, from, at, run } = this.#heard;
    const looked = this.#lookedAt;
    this.#lookedAt = now;
    if (all !== this.#heard.all) {
      const same = bytes === before;
      this.#heard = { bytes, bytesAt: same ? bytesAt : now, from: same ? from : looked, all, at: now, run: same ? 0 : run + 1 };
      if (this.#pc.connectionState === 'connected') this.#hears();
    } else if (now - at > (run < DENSE ? DEAF_MS.thin : DEAF_MS.dense) && at === bytesAt) {
      this.#deaf(); // in the middle of sound, pictures or reports; where there are none, ICE has to notice
    }
    if (this.trouble !== this.#toldTrouble) this.#tell();
    if (!this.#deafSince) return;
    if (now - this.#deafSince > LOST_MS) this.#mediaFailed();
    else this.#restart();
  }

  #hears() {
    if (!this.#deafSince) return;
    this.#deafSince = 0;
    this.#tell();
  }

  #deaf() {
    if (this.#deafSince) return;
    this.#deafSince = performance.now();
    this.#restart();
    this.#tell();
  }

  #tell() {
    this.#toldTrouble = this.trouble;
    this.#on.trouble();
  }

  /** The network is another one, or may be. */
  #repair() {
    this.hurry();
    if (this.#reached) this.#restart();
  }

  #restart() {
    const now = performance.now();
    if (now - this.#restartedAt < RESTART_MS || !this.send('restart_ice', {})) return;
    this.#restartedAt = now;
    this.#after('offer', OFFER_MS, () => this.#cut('connection_lost', 'The server is not responding.', Math.random() * 500));
  }

  #mediaFailed() {
    if (this.#reached) this.lose('media_lost', 'The media path to the server went silent.');
    else this.lose('ice_timeout', 'No media path to the server could be found.');
  }

  // --- negotiation ---

  #serially(job) {
    this.#work = this.#work
      .then(() => this.#closed || job())
      .catch((error) => this.lose('negotiation_failed', `The media could not be negotiated: ${error.message}`));
  }

  /** Answers on the WebSocket that the offer came on, or not at all: after a resume it comes again. */
  async #answer(offer, socket) {
    if (socket !== this.#socket) return;
    await this.#pc.setRemoteDescription({ type: offer.type, sdp: offer.sdp });
    const transceivers = new Map(this.#pc.getTransceivers().map((one) => [one.mid, one]));
    for (const mid of Object.keys(offer.receive)) transceivers.get(mid).direction = 'recvonly';
    this.#sections = new Map(Object.entries(offer.send).map(([mid, source]) => [source, transceivers.get(mid)]));
    for (const [source, section] of this.#sections) {
      const { track, stream } = this.#local.get(source) ?? {};
      section.direction = track || (this.#local.has(source) && sending(section)) ? 'sendonly' : 'inactive';
      await section.sender.replaceTrack(track ?? null);
      if (stream) section.sender.setStreams?.(stream);
      if (track?.kind === 'video') await this.#layer(source, section);
    }
    const stereo = [...this.#sections].filter(([source]) => inStereo(source, this.#local.get(source)?.track)).map(([, { mid }]) => mid);
    const answer = await this.#pc.createAnswer();
    await this.#pc.setLocalDescription({ type: 'answer', sdp: withStereo(answer.sdp, offer.sdp, stereo) });
    const { type, sdp } = this.#pc.localDescription;
    if (socket === this.#socket) this.send('answer', JSON.stringify({ type, sdp }));
    this.#asked = new Set([...this.#asked].filter((source) => !this.#sections.has(source)));
    for (const source of this.#local.keys()) await this.#align(source);
    // keyed by mid: Firefox gives remote tracks other ids than the SDP
    /** @type {[string, object][]} */
    const media = Object.entries(offer.receive).map(([mid, { peer, source }]) => [
      mid,
      { peer, source, track: transceivers.get(mid).receiver.track },
    ]);
    this.#on.media(new Map(media), Number(/^a=candidate:\S+ 1 udp \d+ \S+ (\d+)/im.exec(offer.sdp)?.[1]) || null);
  }

  /** Gives a simulcast its layers, and turns those on that anybody watches. */
  async #layer(source, { sender }) {
    const parameters = sender.getParameters();
    if (!(parameters.encodings?.length > 1)) return;
    const active = this.#active.get(source) ?? ['q']; // more is encoded once somebody watches
    const layers = ['detail', 'text'].includes(sender.track?.contentHint) ? DETAIL : MOTION;
    for (const encoding of parameters.encodings) {
      Object.assign(encoding, { maxFramerate: undefined }, layers[encoding.rid], { active: active.includes(encoding.rid) });
    }
    await sender.setParameters(parameters).catch(() => {}); // negotiated anew meanwhile: the next answer does it
  }

  async #align(source) {
    if (!this.#pc.remoteDescription) return; // the first offer will bring it along
    const { track = null, muted = false } = this.#local.get(source) ?? {};
    const section = this.#sections.get(source);
    if (section && sending(section)) {
      if (section.sender.track !== track) await section.sender.replaceTrack(track);
      if (muted !== (this.#said.has(source) ? this.#said.get(source) : false) && this.send('mute', { source, muted })) this.#said.set(source, muted);
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

/** What has come over the connection so far: `bytes` of sound, pictures and reports, and `all` with answered checks. */
async function received(pc) {
  const reports = [...(await pc.getStats()).values()].filter(({ type }) => type === 'candidate-pair');
  const sum = (name) => reports.reduce((total, one) => total + (one[name] ?? 0), 0);
  const bytes = sum('bytesReceived');
  return { bytes, all: bytes + sum('responsesReceived') };
}

const sending = (section) => section.currentDirection === 'sendonly';
