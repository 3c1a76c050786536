/** An option that cannot be used. */
export class OptionError extends TypeError {
  /** The kind of error. */
  override name = "OptionError";

  /** Makes the error of an option, by the name that a program gives it with. */
  constructor(readonly option: string, readonly reason: string) {
    super(`Cannot use ${option}: ${reason}`);
  }
}
