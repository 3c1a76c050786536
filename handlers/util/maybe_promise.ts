/** Values that are there now or later, so that the memory engine's way stays synchronous. */

/** A value, or a promise of it. */
export type MaybePromise<T> = T | Promise<T>;

/** Calls `next` with a {@link MaybePromise}'s value: in the same call if the value is there, else once it comes. */
export function chain<T, R>(
  value: MaybePromise<T>,
  next: (value: T) => MaybePromise<R>,
): MaybePromise<R> {
  return value instanceof Promise ? value.then(next) : next(value);
}
