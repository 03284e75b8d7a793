/**
 * One session of protocol.js: an RTCPeerConnection, negotiated over a WebSocket that speaks "sfu.v1". A Link knows nothing of
 * rooms and participants: it passes their events to `on.event`.
 *
 * A Link repairs itself. If the WebSocket is lost while media flows, it opens another one and resumes the session; if the media
 * path goes silent, it restarts ICE. A network that goes takes both, and nobody is told: so if the request for ICE is not answered at
 * once, a second WebSocket is dialed beside the first. `trouble` tells what is under repair. Only if that fails is the link lost.
 */

import { layersOf, sizesOf } from './encodings.js';
import { GIVEN_UP, Socket } from './socket.js';

const WELCOME_MS = 10_000; // from opening the WebSocket to `welcome`
const MEDIA_MS = 30_000; // from `welcome` to a media path; the server gives up earlier
const RESUME_MS = { first: 1_000, spread: 2_000, all: 30_000 }; // a refused attempt is repeated after first to first + spread
const ATTEMPT_MS = { short: 2_000, long: 6_000, every: 4 }; // what an attempt to resume may take: new ones find a network that is back, while a long one in four suits slow networks
const PULSE_MS = 500; // interval between two checks of the media path
const DEAF_MS = { dense: 1_500, thin: 3_000 }; // the path is silent if nothing came for so long: dense after media, thin after RTCP reports, which come every second
const DENSE = 4; // consecutive checks with new data that count as media
const FRESH_MS = 1_200; // how long media counts as flowing after the last data
const LAST_MS = 1_000; // how long the media of a server that was killed may still arrive: its workers end a little later
const DISCONNECTED_MS = 2_000; // tolerated ICE disconnection: it often recovers by itself
const ASLEEP_MS = 10_000; // a timer this late means that the machine slept, and the network may have changed
const RESTART_MS = 4_000; // between two ICE restarts; the server accepts one in 2 s
const OFFER_MS = 250; // for the offer of an ICE restart; without it, the WebSocket may be dead whatever its state
const LOST_MS = 15_000; // silence after which the link is given up although the WebSocket works
const CANDIDATES = 30; // the server accepts 32 and, being ICE-lite, needs none

/** Lives from the first WebSocket to the first failure that cannot be repaired; it is not reused. */
export class Link {
  #url;
  #socket; // the one that brought `welcome`, or is to bring the first
  #next = null; // the one dialed to take its place
  #pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
  #local; // source → { track, stream, muted }; owned by the Room
  #on;
  #work = Promise.resolve(); // serializes negotiation and everything that must not interleave with it
  #sections = new Map(); // source → transceiver that the server offers for sending it
  #asked = new Set(); // sources requested with `publish` but not offered yet
  #active = new Map(); // source → rids that somebody watches, as told by the server
  #sized = new Map(); // source → the event `layers` last sent to the server
  #said = new Map(); // source → mute state last sent to the server
  #timers = {};
  #candidates = 0;
  #reached = false; // whether media has ever flowed
  #closed = false;
  #secret = ''; // of the session, for resuming it
  #cutAt = 0; // when the WebSocket was lost; 0 while there is one
  #tries = 0; // attempts to resume since the last `welcome`
  #triedAt = -Infinity;
  #toldAt = 0; // when the WebSocket last brought anything
  #deafSince = 0; // when the media path went silent; 0 while it works
  #restartedAt = -Infinity;
  #restarting = false; // whether an ICE restart was requested and no offer has come since
  // received so far: bytes of media and reports, when they last grew (bytesAt) and the check before (from); with answered ICE
  // checks (all), when that last grew (at); and the number of consecutive checks at which bytes had grown (run)
  #heard = { bytes: 0, bytesAt: 0, from: 0, all: 0, at: 0, run: 0 };
  #lookedAt = 0;
  #toldTrouble = null;
  #beatAt = Date.now();
  #changed = () => this.#repair();

  /** `ticket`: of an earlier session, which the server continues if it can; else this is a join. */
  constructor(url, { token, ticket }, local, on) {
    this.#url = url;
    this.#local = local;
    this.#on = on;
    this.#socket = this.#dial(...(token ? [`token.${token}`] : []), ...(ticket ? [`return.${ticket}`] : []));
    this.#after('welcome', WELCOME_MS, () => this.#cut('unreachable', 'The server is not responding.'));
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
   * What is under repair. Null: nothing. 'media': the media path is silent. While the WebSocket is being replaced:
   * 'connection' if media is known to flow, 'all' if it is silent, 'unknown' if neither has been measured yet.
   */
  get trouble() {
    if (!this.#cutAt) return this.#deafSince ? 'media' : null;
    if (this.#deafSince) return 'all';
    const { bytesAt, from } = this.#heard; // the data must have arrived between two checks made LAST_MS after the WebSocket was lost
    return from > this.#cutAt + LAST_MS && performance.now() - bytesAt < FRESH_MS ? 'connection' : 'unknown';
  }

  /** Queues a message; false if it cannot be sent. */
  send(event, data) {
    return !this.#cutAt && this.#socket.send(event, data);
  }

  /** Brings the transceiver and the server in line with what is now published as `source`. */
  sync(source) {
    this.#serially(() => this.#align(source));
  }

  unpublish(source) {
    this.#asked.delete(source);
    this.#said.delete(source);
    this.#sized.delete(source);
    this.send('unpublish', { source });
  }

  /** Makes the next sync() send `publish` for `source` again, even if it was sent before. */
  askAgain(source) {
    this.#asked.delete(source);
  }

  /** Ends a pause before the next attempt to resume, or looks for a media path anew. */
  hurry() {
    if (this.#timers.resume) this.#redial();
    else if (this.#secret && (this.#deafSince || !this.#reached)) this.#restart();
  }

  lose(code, message, rejoin = true, retry_after_s = null) {
    if (this.#closed) return;
    this.close(GIVEN_UP);
    this.#on.lost({ code, message, rejoin, retry_after_s });
  }

  close(code) {
    this.#closed = true;
    Object.values(this.#timers).forEach(clearTimeout); // clears intervals too
    globalThis.removeEventListener?.('online', this.#changed);
    navigator.connection?.removeEventListener?.('change', this.#changed);
    this.#socket.close(code);
    this.#next?.close(code);
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

  #dial(...values) {
    const socket = new Socket(this.#url, values, {
      message: (event, data) => this.#receive(socket, event, data),
      closed: (opened) => {
        const said = opened
          ? ['connection_lost', 'The connection to the server was lost.']
          : ['unreachable', 'The server cannot be reached, or refuses this page.'];
        if (socket === this.#next) this.#missed(...said);
        else this.#cut(...said);
      },
    });
    return socket;
  }

  #receive(socket, event, data) {
    this.#toldAt = performance.now();
    if (event === 'bye' && data.code === 'replaced' && this.#toldAt - this.#triedAt < WELCOME_MS) return; // by an own attempt to resume, even one given up
    if (event === 'offer') {
      this.#cancel('offer');
      this.#restarting = false;
      this.#serially(() => this.#answer(JSON.parse(data), socket));
    } else if (event === 'candidate') this.#serially(() => this.#pc.addIceCandidate(JSON.parse(data)));
    else if (event === 'layers') {
      this.#active.set(data.source, data.active);
      const section = this.#sections.get(data.source);
      if (section) this.#serially(() => section.sender.track && this.#layer(data.source, section));
    }
    else if (event === 'unreached') this.#explain(data);
    else {
      if (event === 'waiting') this.#cancel('welcome'); // the server decides how long somebody waits in the lobby
      if (event === 'welcome') this.#welcome(socket, data);
      this.#on.event(event, data);
    }
  }

  /** The server cannot know that it is this browser that sends nothing, for example under a policy against UDP. */
  async #explain(data) {
    const { asked } = await received(this.#pc);
    if (!this.#closed) this.#on.event('unreached', asked ? data : { ...data, cause: 'browser' });
  }

  #welcome(socket, { session, resumed, ice_servers: iceServers }) {
    for (const timer of ['welcome', 'attempt', 'resume']) this.#cancel(timer);
    if (socket === this.#next) {
      this.#socket.close(GIVEN_UP);
      this.#socket = socket;
      this.#next = null;
    }
    this.#secret = session;
    if (iceServers?.length) this.#pc.setConfiguration?.({ ...this.#pc.getConfiguration(), iceServers }); // for the next candidates
    if (!resumed) return this.#after('media', MEDIA_MS, () => this.#mediaFailed());
    this.#cutAt = this.#tries = 0;
    this.#asked.clear();
    this.#sized.clear(); // the next pulse tells again
    for (const source of this.#sections.keys()) {
      this.#said.set(source, null); // the last message may not have arrived
      if (!this.#local.has(source) && sending(this.#sections.get(source))) this.unpublish(source);
    }
    for (const source of this.#local.keys()) this.sync(source);
    this.#restartedAt = -Infinity; // the last request may not have arrived
    if (this.#deafSince) this.#deafSince = performance.now(); // there is a chance again
    if (this.#deafSince || this.#restarting) this.#restart();
    this.#tell();
  }

  /** The WebSocket is lost or useless. If the session can still be resumed, schedules that; otherwise the link is lost. */
  #cut(code, message, pause = RESUME_MS.first + Math.random() * RESUME_MS.spread) {
    const now = performance.now();
    for (const timer of ['welcome', 'offer']) this.#cancel(timer);
    this.#socket.close(GIVEN_UP);
    this.#cutAt ||= now;
    if (!this.#secret || !this.#reached || now - this.#cutAt > RESUME_MS.all) return this.lose(code, message);
    if (!this.#next) this.#after('resume', pause, () => this.#redial());
    this.#tell();
  }

  /** Dials a WebSocket that resumes the session. The present one stays, as it may work: only `welcome` shows which of them does. */
  #redial() {
    this.#cancel('resume');
    this.#next?.close(GIVEN_UP);
    this.#triedAt = performance.now();
    this.#next = this.#dial(`resume.${this.#secret}`);
    const patience = ++this.#tries % ATTEMPT_MS.every ? ATTEMPT_MS.short : ATTEMPT_MS.long;
    this.#after('attempt', patience, () => this.#missed('unreachable', 'The server is not responding.', 0));
  }

  /** An attempt to resume has failed, so the present WebSocket will not do better. */
  #missed(code, message, pause) {
    this.#cancel('attempt');
    this.#next.close(GIVEN_UP);
    this.#next = null;
    this.#cut(code, message, pause);
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
    } else if (state === 'failed' && this.#reached) this.#deaf();
    else if (state === 'failed' && ['connected', 'completed'].includes(this.#pc.iceConnectionState)) this.#mediaFailed(); // else the server tells why
    else if (state === 'disconnected') this.#after('silent', DISCONNECTED_MS, () => this.#deaf());
  }

  /** Twice a second: detects that the machine slept, and that the media path went silent or recovered. */
  async #pulse() {
    const late = Date.now() - this.#beatAt > ASLEEP_MS;
    this.#beatAt = Date.now();
    if (!this.#reached) return;
    if (late) this.#repair();
    this.#resize();
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
      this.#deaf(); // the last data was media or reports; if there were none, ICE detects the failure
    }
    if (this.trouble !== this.#toldTrouble) this.#tell();
    if (!this.#deafSince) return;
    if (now - this.#deafSince > LOST_MS && !this.#cutAt) this.#mediaFailed();
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
    this.hurry();
    this.#tell();
  }

  #tell() {
    this.#toldTrouble = this.trouble;
    this.#on.trouble();
  }

  /** The network may have changed, so an attempt that began on the earlier one is over. */
  #repair() {
    if (this.#next) this.#redial();
    this.hurry();
    if (this.#reached) this.#restart();
  }

  #restart() {
    const now = performance.now();
    if (now - this.#restartedAt < RESTART_MS || !this.send('restart_ice', {})) return;
    this.#restartedAt = now;
    this.#restarting = true;
    this.#after('offer', OFFER_MS, () => this.#toldAt > now || this.#next || this.#redial());
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

  /** Answers only on the WebSocket that brought the offer: after a resume the server sends the offer again. */
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
    const wide = stereo.length > 0 || offer.sdp.includes('sprop-stereo=1') ? await import('./stereo.js').catch(() => null) : null; // in mono rather than not at all
    await this.#pc.setLocalDescription({ type: 'answer', sdp: wide?.withStereo(answer.sdp, offer.sdp, stereo) ?? answer.sdp });
    const { type, sdp } = this.#pc.localDescription;
    if (socket === this.#socket) this.send('answer', JSON.stringify({ type, sdp }));
    this.#asked = new Set([...this.#asked].filter((source) => !this.#sections.has(source)));
    for (const source of this.#local.keys()) await this.#align(source);
    // keyed by mid: in Firefox, the ids of remote tracks differ from those in the SDP
    /** @type {[string, object][]} */
    const media = Object.entries(offer.receive).map(([mid, { peer, source }]) => [
      mid,
      { peer, source, track: transceivers.get(mid).receiver.track },
    ]);
    this.#on.media(new Map(media));
  }

  /** Sets the encodings of a simulcast by the size of its track, enables the layers that somebody watches, and tells the server. */
  async #layer(source, { sender }) {
    const parameters = sender.getParameters();
    if (!(parameters.encodings?.length > 1)) return;
    const active = this.#active.get(source) ?? ['q']; // until the server reports that somebody watches more
    const layers = layersOf(sender.track);
    for (const encoding of parameters.encodings) {
      const layer = layers.find(({ rid }) => rid === encoding.rid);
      Object.assign(encoding, { maxFramerate: undefined }, layer?.encoding, { active: Boolean(layer) && active.includes(encoding.rid) });
    }
    await sender.setParameters(parameters).catch(() => {}); // renegotiated meanwhile: the next answer sets them
    const sizes = sizesOf(source, layers);
    if (sizes && this.#unsaid(sizes) && this.send('layers', sizes)) this.#sized.set(source, JSON.stringify(sizes));
  }

  /** Cameras change their size when the device is turned or replaced, shared windows when they are resized; no event tells. */
  #resize() {
    if (this.#cutAt) return;
    for (const [source, section] of this.#sections) {
      const { track } = section.sender;
      if (track?.kind !== 'video' || !(section.sender.getParameters().encodings?.length > 1)) continue;
      const sizes = sizesOf(source, layersOf(track));
      if (sizes && this.#unsaid(sizes)) this.#serially(() => section.sender.track && this.#layer(source, section));
    }
  }

  #unsaid(sizes) {
    return this.#sized.get(sizes.source) !== JSON.stringify(sizes);
  }

  async #align(source) {
    if (!this.#pc.remoteDescription) return; // the answer to the first offer aligns all sources
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

/** Totals so far: `bytes` of media and reports received, `all`, which adds the number of answered ICE checks, and `asked`, of checks sent. */
async function received(pc) {
  const reports = [...(await pc.getStats()).values()].filter(({ type }) => type === 'candidate-pair');
  const sum = (name) => reports.reduce((total, one) => total + (one[name] ?? 0), 0);
  const bytes = sum('bytesReceived');
  return { bytes, all: bytes + sum('responsesReceived'), asked: sum('requestsSent') };
}

/** Whether to send a track in stereo: the sound of a shared tab or music, never a microphone. */
const inStereo = (source, track) => source !== 'microphone' && track?.kind === 'audio' && track.getSettings().channelCount > 1;

const sending = (section) => section.currentDirection === 'sendonly';
