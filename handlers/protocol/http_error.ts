/** An error over HTTP. `handlers/README.md`, HTTP. */

/** Thrown by whatever refuses a request; the router turns it into the JSON answer. */
export class HttpError extends Error {
  override name = "HttpError";

  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly headers: Record<string, string> = {},
    /** Further fields of the answer. */
    readonly details: Record<string, unknown> = {},
  ) {
    super(message);
  }

  toResponse(): Response {
    const body = { type: "error", code: this.code, message: this.message, ...this.details };
    return Response.json(body, { status: this.status, headers: this.headers });
  }
}
