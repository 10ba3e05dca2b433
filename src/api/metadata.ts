/** Metadata in which a client names the containerd that it means, where its user did. */
export const addressMetadata = 'stasis-containerd-address';

/** Metadata in which a client names its call, so that it can ask to cancel it and still hear how it ends. */
export const operationMetadata = 'stasis-operation';
