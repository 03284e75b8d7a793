/**
 * One connection of protocol.js: a WebSocket that speaks "sfu.v1", and the RTCPeerConnection negotiated over it. Rooms and
 * people are not its business; what it hears of them goes to `on.event`.
 */

const SUBPROTOCOL = 'sfu.v1';
const WELCOME_MS = 10_000; // from dialling to `welcome`
const MEDIA_MS = 30_000; // from `welcome` to a media path; the server gives up before
const SILENT_MS = 5_000; // how long ICE may be disconnected; it often comes back by itself
const RATE = { perSecond: 15, burst: 40, queue: 100 }; // under the server's 20 messages/s with bursts of 60
const CANDIDATES = 30; // the server takes 32 and, being ICE-lite, needs none

/** What a camera sends, smallest first; the server offers these rids. Shared screens need their detail: no `q`. */
const LAYERS = [
  { rid: 'q', scaleResolutionDownBy: 4, maxBitrate: 150_000 },
  { rid: 'h', scaleResolutionDownBy: 2, maxBitrate: 500_000 },
  { rid: 'f', scaleResolutionDownBy: 1, maxBitrate: 2_500_000 },
];

/** One WebSocket with one RTCPeerConnection: lives from dialling to the first loss, never longer. */
export class Link {
  #socket;
  #pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
  #local; // Map of source → { track, stream, muted }, the room's
  #on;
  #work = Promise.resolve(); // offers and what must not run beside them
  #sections = new Map(); // source → transceiver the server lets us send it in
  #asked = new Set(); // sources asked for with `publish`, not offered yet
  #active = new Map(); // source → rids that anybody watches, once the server has said so
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
    if (event === 'layers') {
      this.#active.set(data.source, data.active);
      const section = this.#sections.get(data.source);
      if (section) this.#serially(() => this.#layer(data.source, section));
      return;
    }
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
      if (track?.kind === 'video') await this.#layer(source, section);
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

  /** Gives a simulcast its layers, and turns those on that anybody watches. */
  async #layer(source, { sender }) {
    const parameters = sender.getParameters();
    if (!(parameters.encodings?.length > 1)) return;
    const active = this.#active.get(source) ?? LAYERS.map(({ rid }) => rid);
    for (const encoding of parameters.encodings) {
      const { scaleResolutionDownBy, maxBitrate } = LAYERS.find(({ rid }) => rid === encoding.rid) ?? {};
      Object.assign(encoding, { scaleResolutionDownBy, maxBitrate, active: active.includes(encoding.rid) });
    }
    await sender.setParameters(parameters).catch(() => {}); // negotiated anew meanwhile: the next answer does it
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
