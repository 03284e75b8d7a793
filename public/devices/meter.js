/** Measures a microphone's level, even while it is muted: on a clone of the track, which never leaves this device. */

const EVERY_MS = 100;
const CALM_MS = 250; // with reduced motion
const WAKE_MS = 500; // how long a new AudioContext may take to start
const QUIETEST_DB = -60;
const LOUDEST_DB = -14;

let context = null;

/** Whether the browser lets pages work on sound. */
export const hasAudio = 'AudioContext' in window;

/** The page's only AudioContext. Browsers start it only after a user gesture. */
export function audio() {
  if (!context) {
    context = new AudioContext();
    const wake = () => context.state === 'suspended' && context.resume().catch(() => {});
    for (const type of ['pointerdown', 'keydown']) addEventListener(type, wake);
  }
  return context;
}

/** Calls `then` with the level, 0 to 1, several times a second until the returned function is called. */
export function meter(track, then) {
  const copy = track.clone();
  copy.enabled = true;
  const source = audio().createMediaStreamSource(new MediaStream([copy]));
  const analyser = audio().createAnalyser();
  analyser.fftSize = 1024;
  source.connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  let shown = 0;
  const measure = () => {
    analyser.getFloatTimeDomainData(samples);
    let sum = 0;
    for (const one of samples) sum += one * one;
    const db = 10 * Math.log10(sum / samples.length + 1e-12);
    const level = Math.min(1, Math.max(0, (db - QUIETEST_DB) / (LOUDEST_DB - QUIETEST_DB)));
    shown = Math.max(level, shown * 0.7); // falls more slowly than it rises, for readability
    then(shown);
  };
  const timer = setInterval(measure, matchMedia('(prefers-reduced-motion: reduce)').matches ? CALM_MS : EVERY_MS);
  return () => {
    clearInterval(timer);
    source.disconnect();
    copy.stop();
    then(0);
  };
}

/** @typedef {[frequency: number, at_s: number]} Note */

const TEST = /** @type {Note[]} */ ([[523.25, 0.1], [659.25, 0.38], [783.99, 0.66]]);

/** Whether the AudioContext runs. Sounds that a suspended one keeps would all be played later, at once. */
async function awake() {
  if (!hasAudio) return false;
  if (audio().state === 'suspended') await Promise.race([audio().resume(), new Promise((then) => setTimeout(then, WAKE_MS))]);
  return audio().state === 'running';
}

/** Plays notes on the output device `sink`: a device id, or '' for the system default. Silent until browsers allow sound. */
export async function play(/** @type {Note[]} */ notes, sink, loudness = 0.2) {
  if (!(await awake())) return;
  const out = audio().createMediaStreamDestination();
  const player = new Audio();
  player.srcObject = out.stream;
  if (sink) await player.setSinkId?.(sink).catch(() => {});
  const start = audio().currentTime;
  for (const [frequency, at_s] of notes) {
    const [tone, volume] = [audio().createOscillator(), audio().createGain()];
    const at = start + at_s;
    tone.frequency.value = frequency;
    volume.gain.setValueAtTime(0, at);
    volume.gain.linearRampToValueAtTime(loudness, at + 0.02);
    volume.gain.exponentialRampToValueAtTime(0.001, at + 0.5);
    tone.connect(volume).connect(out);
    tone.start(at);
    tone.stop(at + 0.55);
  }
  await player.play().catch(() => {});
  setTimeout(() => (player.srcObject = null), 2_000);
}

export const testTone = (sink) => play(TEST, sink);
