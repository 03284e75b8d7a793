// Before a page of a call loads: its connection is `pc`, and its camera and microphone cost little: ten small frames a
// second, and a tone after `speak(true)`.
window.RTCPeerConnection = class extends RTCPeerConnection {
  constructor(...settings) {
    super(...settings);
    window.pc = this;
  }
};
navigator.mediaDevices.getUserMedia = async () => {
  const canvas = Object.assign(document.createElement('canvas'), { width: 160, height: 120 });
  const drawing = canvas.getContext('2d');
  setInterval(() => {
    drawing.fillStyle = `hsl(${performance.now() / 10} 80% 50%)`;
    drawing.fillRect(0, 0, 160, 120);
  }, 100);
  const sound = new AudioContext();
  const [tone, volume, out] = [sound.createOscillator(), sound.createGain(), sound.createMediaStreamDestination()];
  volume.gain.value = 0;
  tone.connect(volume).connect(out);
  tone.start();
  window.speak = (loud) => { volume.gain.value = loud ? 0.3 : 0; return Date.now(); };
  return new MediaStream([...canvas.captureStream(10).getTracks(), ...out.stream.getTracks()]);
};
// what is brought: a section that this page sends in has a receiver, too
const videos = () => pc.getReceivers().filter(({ track }) => track.id.endsWith('-camera') && track.readyState === 'live');
const decoded = async (receiver) => {
  for (const one of (await receiver.getStats()).values()) if (one.type === 'inbound-rtp') return one.framesDecoded ?? 0;
  return 0;
};
/** Frames decoded of each video that is brought here, by whose it is. */
window.frames_by_peer = async () =>
  Object.fromEntries(await Promise.all(videos().map(async (one) => [one.track.id.replace(/-camera$/, ''), await decoded(one)])));
/** Sets `seen` to when a peer's next frame is decoded. */
window.watch = async (peer) => {
  window.seen = 0;
  const receiver = videos().find(({ track }) => track.id === `${peer}-camera`);
  const before = await decoded(receiver);
  while (await decoded(receiver) === before) await new Promise((done) => setTimeout(done, 20));
  window.seen = Date.now();
};
