/** A client of the REST API of sfu-rooms, and the verification of its webhooks. */

export { Client } from './client.js';
export { ApiError, Unreachable } from './errors.js';
export { verifyWebhook, WebhookError } from './webhooks.js';
