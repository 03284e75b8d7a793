/** The server refused a request. `code` is stable; `retryAfter` is in seconds, or null if the server named no time. */
export class ApiError extends Error {
  constructor(status, code, detail, { field = '', requestId = '', retryAfter = null } = {}) {
    super(`${detail} (${status ? `${code}, ${status}` : code})`);
    this.name = new.target.name;
    Object.assign(this, { status, code, detail, field, requestId, retryAfter });
  }
}

/** There was no answer, so the request may or may not have had its effect. `status` is 0. */
export class Unreachable extends ApiError {
  constructor(detail, cause) {
    super(0, 'unreachable', detail);
    this.cause = cause;
  }
}
