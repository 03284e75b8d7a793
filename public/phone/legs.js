/**
 * Tests the ways of media between this device and the server: UDP, TCP and a TURN server, all at the same time. On each leg one
 * connection sends a drawn picture and another one receives it. The server tells what it saw; sfu/calls/probes.py has the messages.
 */

const LEG_MS = 8_000; // a way that exists is found within a second
const LOOK_MS = 100;
const SIZE = { width: 160, height: 120 };
const FRAMES = 10; // per second

export const LEGS = ['udp', 'tcp', 'relay'];

/** A track that needs no camera and no permission: a picture that changes. */
function drawn() {
  const canvas = Object.assign(document.createElement('canvas'), SIZE);
  const context = canvas.getContext('2d');
  let step = 0;
  const timer = setInterval(() => {
    context.fillStyle = `hsl(${(step += 7) % 360} 60% 50%)`;
    context.fillRect(0, 0, SIZE.width, SIZE.height);
  }, 1000 / FRAMES);
  const [track] = canvas.captureStream(FRAMES).getTracks();
  return { track, stop: () => (clearInterval(timer), track.stop()) };
}

/** An offer with the candidates of one transport only, so that nothing but this leg is tested. */
const only = (sdp, transport) => sdp.split('\r\n').filter((line) => !line.startsWith('a=candidate:') || line.split(' ')[2] === transport).join('\r\n');

async function packets(pc) {
  const reports = [...(await pc.getStats()).values()];
  return reports.filter((one) => one.type === 'inbound-rtp').reduce((sum, one) => sum + (one.packetsReceived ?? 0), 0);
}

/** One leg: `tell` sends a message to the server. */
class Leg {
  #pcs = {};
  #work = Promise.resolve();
  #relayed = false;
  #name;
  #iceServers;
  #tell;
  #track;

  constructor(name, iceServers, tell, track) {
    this.#name = name;
    this.#iceServers = iceServers;
    this.#tell = tell;
    this.#track = track;
  }

  /** How it went, for the server: { leg, ok, stage, ms }. */
  async run() {
    const began = performance.now();
    const gone = () => Math.round(performance.now() - began);
    this.#tell('join', { leg: this.#name, publish: true });
    this.#tell('join', { leg: this.#name, publish: false }); // it gets its offer once the picture arrives at the server
    let came = 0;
    while (!came && gone() < LEG_MS) {
      await new Promise((then) => setTimeout(then, LOOK_MS));
      came = this.#pcs.false ? await packets(this.#pcs.false).catch(() => 0) : 0;
    }
    return { leg: this.#name, ok: came > 0, stage: this.#stage(), ms: gone() };
  }

  #stage() {
    if (this.#pcs.true?.connectionState === 'connected') return 'media';
    return this.#name === 'relay' && !this.#relayed ? 'gather' : 'ice';
  }

  offered(publish, sdp) {
    this.#work = this.#work.then(() => this.#answer(publish, sdp)).catch(() => {}); // without an answer the leg fails by its timeout
  }

  async #answer(publish, sdp) {
    const policy = this.#name === 'relay' ? 'relay' : 'all';
    const pc = (this.#pcs[publish] ??= new RTCPeerConnection({ iceServers: this.#iceServers, iceTransportPolicy: policy, bundlePolicy: 'max-bundle' }));
    pc.onicecandidate = ({ candidate }) => void (this.#relayed ||= candidate?.candidate.includes(' typ relay') ?? false);
    await pc.setRemoteDescription({ type: 'offer', sdp: only(sdp, this.#name === 'tcp' ? 'tcp' : 'udp') });
    const video = publish && pc.getTransceivers().find((one) => one.receiver.track.kind === 'video');
    if (video) {
      await video.sender.replaceTrack(this.#track);
      video.direction = 'sendonly';
    }
    await pc.setLocalDescription(await pc.createAnswer());
    this.#tell('answer', { leg: this.#name, publish, sdp: pc.localDescription.sdp });
  }

  close() {
    for (const pc of Object.values(this.#pcs)) pc.close();
  }
}

/**
 * Runs the test. `on.server(known)`: signalling works, and `known` has the server's addresses by leg, [] for a leg that it does not
 * have. `on.verdict({ leg, cause, ms })`: a leg is done. `on.closed(code)`: no signalling, or it ended before the test; `code` is the
 * server's reason, '' if it said none. `on.done()`: all is told.
 */
export function test(url, secret, on) {
  const socket = new WebSocket(url, ['sfu.v1', `probe.${secret}`]);
  const legs = new Map();
  const picture = drawn();
  let reason = '';
  let open = 0;
  const tell = (event, data) => socket.readyState === WebSocket.OPEN && socket.send(JSON.stringify({ event, data }));
  const finish = () => {
    picture.stop();
    for (const leg of legs.values()) leg.close();
  };
  const begin = (known) => {
    const has = { udp: known.udp, tcp: known.tcp, relay: known.iceServers.flatMap((one) => one.urls) };
    on.server(has, known.client);
    for (const name of LEGS.filter((one) => has[one].length)) {
      const leg = new Leg(name, name === 'relay' ? known.iceServers : [], tell, picture.track);
      legs.set(name, leg);
      open++;
      leg.run().then((result) => tell('result', result));
    }
    if (!open) end();
  };
  const end = () => {
    tell('done', {});
    finish();
    socket.onclose = null;
    on.done();
  };
  socket.onmessage = ({ data: text }) => {
    const { event, data } = JSON.parse(text);
    if (event === 'probe') begin(data);
    else if (event === 'offer') legs.get(data.leg)?.offered(data.publish, data.sdp);
    else if (event === 'bye') reason = data.code;
    else if (event === 'verdict') {
      legs.get(data.leg)?.close();
      on.verdict(data);
      if (!--open) end();
    }
  };
  socket.onclose = () => {
    finish();
    on.closed(reason);
  };
}
