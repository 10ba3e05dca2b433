/** Trailer that carries an encoded stasis.v1.ErrorInfo beside a gRPC status. */
export const errorTrailer = 'stasis-error-bin';
