/** A client of the REST API of sfu-rooms. Times in answers are texts such as 2026-01-31T08:15:02.120Z. */

export interface Permissions {
  publish: boolean;
  subscribe: boolean;
  chat: boolean;
  moderate: boolean;
}

/** `duration` and `max_duration` are in seconds. */
export interface TokenOptions {
  user_id?: string;
  metadata?: Record<string, unknown>;
  not_before?: string | Date;
  duration?: number;
  max_duration?: number;
  permissions?: Partial<Permissions>;
  single_use?: boolean;
}

export interface TokenRequest extends TokenOptions {
  room_id: string;
  user_name: string;
}

export interface IssuedToken {
  token: string;
  id: string;
  room_id: string;
  user_name: string;
  not_before: string;
  expires_at: string;
}

export type TokenState = 'valid' | 'early' | 'used' | 'revoked' | 'expired';

/** A token's record, without the token. */
export interface Token {
  id: string;
  room_id: string;
  user_name: string;
  user_id: string;
  metadata: Record<string, unknown>;
  permissions: Permissions;
  single_use: boolean;
  created_at: string;
  not_before: string | null;
  expires_at: string;
  used_at: string | null;
  revoked_at: string | null;
  max_duration: number | null;
  state: TokenState;
}

export interface Inspection {
  valid: boolean;
  code: string;
  message: string;
  advice: string;
  header: Record<string, unknown> | null;
  claims: Record<string, unknown> | null;
}

export interface RoomSettings {
  name: string;
  description: string;
  max_participants: number;
  access: 'open' | 'token';
  locked: boolean;
  lobby: boolean;
  files: boolean;
  chat_kept_s: number | null;
  metadata: Record<string, unknown>;
}

export interface RoomSummary extends RoomSettings {
  id: string;
  room_id: string;
  participant_count: number;
  created_at: string;
  updated_at: string;
  last_join_at: string | null;
}

export interface Room extends RoomSummary {
  participants: { session_id: string; user_name: string; connected_at: string }[];
}

export interface Participant {
  session_id: string;
  peer: string;
  user_name: string;
  moderator: boolean;
  hand: number;
  drops: number;
  returns: number;
  last_drop: string | null;
  tracks: { source: string; kind: 'audio' | 'video'; muted: boolean }[];
}

/** One stay of one person. It has more fields about quality once it has ended. */
export interface Session {
  id: string;
  room_id: string;
  user_name: string;
  token_id: string | null;
  peer_address: string;
  connected_at: string;
  last_seen_at: string;
  disconnected_at: string | null;
  leave_reason: string | null;
  duration_s: number | null;
  drops: number;
  returns: number;
  last_drop: string | null;
  score_mean: number | null;
  score_min: number | null;
}

export interface UserRoom {
  room_id: string;
  name: string;
  participant_count: number;
  since: string;
}

/** What a webhook is sent. `data` depends on the `type`. */
export interface Event {
  id: string;
  type: string;
  timestamp: string;
  seq: number;
  company_id: string;
  room_id: string | null;
  data: Record<string, unknown>;
}

/** The server refused a request. `code` is stable; `retryAfter` is in seconds, or null if the server named no time. */
export class ApiError extends Error {
  readonly status: number;
  readonly code: string;
  readonly detail: string;
  /** The invalid field, or empty. */
  readonly field: string;
  /** How the server's logs name the request. */
  readonly requestId: string;
  readonly retryAfter: number | null;
}

/** There was no answer, so the request may or may not have had its effect. `status` is 0. */
export class Unreachable extends ApiError {}

export interface Repeatable {
  /** Send the same again to repeat a request without repeating its effect. */
  idempotencyKey?: string;
}

export interface Conditional {
  /** An ETag of `getVersioned`. If somebody else changed the room since, an ApiError with the status 412 is thrown. */
  ifMatch?: string;
}

export interface ClientOptions {
  /** How long each attempt may wait for an answer: 20,000. */
  timeoutMs?: number;
  /** How often a request is sent at most: 4. */
  attempts?: number;
}

/** Asks a server with an API key. Every method may throw an ApiError. */
export class Client {
  constructor(baseUrl: string, key: string, options?: ClientOptions);

  /** Where a person enters with a token; without a preview of camera and microphone if it is false. */
  link(token: string, options?: { preview?: boolean }): string;

  /** Any other request to the API, such as `request('GET', '/audit', undefined, { query: { limit: 10 } })`. */
  request(
    method: string,
    path: string,
    body?: unknown,
    options?: Repeatable & Conditional & { query?: Record<string, string | number | undefined> },
  ): Promise<any>;

  readonly tokens: {
    issue(roomId: string, userName: string, wanted?: TokenOptions, options?: Repeatable): Promise<IssuedToken>;
    /** Creates up to 100 tokens: all of them, or none. */
    bulk(requests: TokenRequest[], options?: Repeatable): Promise<IssuedToken[]>;
    /** Whether a token is accepted now, and if not, why. */
    inspect(token: string): Promise<Inspection>;
    get(tokenId: string): Promise<Token>;
    /** Newest first. `user` is a name, or your id of the person. */
    list(filters?: { room?: string; user?: string; state?: TokenState }): AsyncIterableIterator<Token>;
    /** For good; it ends the call of whoever entered with it. */
    revoke(tokenId: string): Promise<void>;
  };

  readonly rooms: {
    /** Throws an ApiError with the code `room_exists` if there is one. */
    create(roomId: string, settings?: Partial<RoomSettings>, options?: Repeatable): Promise<Room>;
    /** A room that exists is returned as it is: the settings are only those of a new one. */
    getOrCreate(roomId: string, settings?: Partial<RoomSettings>): Promise<Room>;
    get(roomId: string): Promise<Room>;
    getVersioned(roomId: string): Promise<{ room: Room; etag: string }>;
    /** By id. */
    list(): AsyncIterableIterator<RoomSummary>;
    /** Changes what is given. */
    change(roomId: string, settings: Partial<RoomSettings>, options?: Conditional): Promise<Room>;
    /** Deletes the room and its chat, ends its call and revokes its tokens. */
    delete(roomId: string, options?: Conditional): Promise<void>;
    /** For everybody; the room remains. */
    endCall(roomId: string): Promise<void>;
  };

  readonly participants: {
    list(roomId: string): Promise<Participant[]>;
    /** They can unmute themselves. `source` is `microphone` if it is left out. */
    mute(roomId: string, sessionId: string, source?: string): Promise<void>;
    /** Removes somebody from the call, and keeps them out. */
    remove(roomId: string, sessionId: string): Promise<void>;
  };

  readonly sessions: {
    /** Past and present stays, newest first. `user` is a name, or your id of the person. */
    list(filters?: { room?: string; user?: string; state?: string }): AsyncIterableIterator<Session>;
    get(sessionId: string): Promise<Session>;
    /** The rooms somebody is in now. */
    roomsOf(userName: string): Promise<UserRoom[]>;
  };
}

/** The message does not come from the server, or is too old. */
export class WebhookError extends Error {}

/**
 * The event in a message. `body` is what came, before it is parsed. One of the secrets must fit, if there are several.
 * `now` is in seconds since 1970. Throws a WebhookError unless the server made the message, at most `toleranceS` ago.
 */
export function verifyWebhook(
  secret: string | string[],
  headers: Headers | Record<string, string | string[] | undefined>,
  body: string | Uint8Array | ArrayBuffer,
  options?: { toleranceS?: number; now?: number },
): Promise<Event>;
