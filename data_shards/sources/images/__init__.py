"""Images in files: folders and tables of DICOM, NIfTI, pictures and arrays."""
