/** Switching cameras with one press, as phones offer it. */

import { choose } from '../base/storage.js';

const OPPOSITE = { user: 'environment', environment: 'user' };

/** Whether there is another camera to switch to. */
export const canFlip = (devices) => devices.choices.camera.length > 1 && devices.status('camera') === 'on';

/** Switches between the front and the back of a phone, which may have several cameras on each; elsewhere, to the next camera. */
export async function flip(devices) {
  if (!canFlip(devices)) return;
  const { facingMode, deviceId } = devices.track('camera').getSettings();
  const ids = devices.choices.camera.map(({ id }) => id);
  if (!OPPOSITE[facingMode]) return devices.pick('camera', ids[(ids.indexOf(deviceId) + 1) % ids.length]);
  await devices.reopen('camera', OPPOSITE[facingMode]);
  choose({ camera: devices.track('camera')?.getSettings().deviceId ?? '' });
}
